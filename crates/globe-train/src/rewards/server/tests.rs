use std::{
    io::{BufRead, BufReader, Read, Write},
    net::TcpListener,
    thread::JoinHandle,
};

use super::*;

/// Answers connections with the replies in turn and gives back the bodies it was sent.
fn serve(replies: Vec<(u16, String)>) -> (String, JoinHandle<Vec<String>>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}/v1", listener.local_addr().unwrap());
    let handle = thread::spawn(move || {
        let answer = |(status, reply): (u16, String)| {
            let (mut stream, _) = listener.accept().unwrap();
            let mut reader = BufReader::new(stream.try_clone().unwrap());
            let (mut line, mut length) = (String::new(), 0);
            while line != "\r\n" {
                line.clear();
                reader.read_line(&mut line).unwrap();
                if let Some(value) = line.to_lowercase().strip_prefix("content-length:") {
                    length = value.trim().parse().unwrap();
                }
            }
            let mut body = vec![0; length];
            reader.read_exact(&mut body).unwrap();
            let head = format!("HTTP/1.1 {status} x\r\ncontent-length: {}", reply.len());
            write!(stream, "{head}\r\nconnection: close\r\n\r\n{reply}").unwrap();
            String::from_utf8(body).unwrap()
        };
        replies.into_iter().map(answer).collect()
    });
    (url, handle)
}

fn judge(url: String, attempts: u32) -> JudgeServer {
    let config = ServerConfig {
        url,
        model: "judge".into(),
        attempts,
        backoff_ms: 1,
        timeout_ms: 5000,
        parallel: 1,
        top_logprobs: 5,
    };
    JudgeServer::new(config).unwrap()
}

fn reply(tokens: &[(&str, f64)]) -> (u16, String) {
    let top: Vec<_> =
        tokens.iter().map(|(t, p)| json!({ "token": t, "logprob": p.ln() })).collect();
    let content = json!([{ "token": "Yes", "logprob": 0.0, "top_logprobs": top }]);
    (200, json!({ "choices": [{ "logprobs": { "content": content } }] }).to_string())
}

const REQUEST: JudgeRequest<'_> = JudgeRequest { image: b"\x89PNG", question: "Well?" };

#[test]
fn probabilities_come_from_the_logprobs() {
    let (url, server) = serve(vec![reply(&[("Yes", 0.6), ("no", 0.2), ("Oh", 0.1)])]);
    let got = judge(url, 1).judge(&[REQUEST]).unwrap();
    assert!((got[0].p_yes().unwrap() - 0.75).abs() < 1e-12);
    let body: serde_json::Value = serde_json::from_str(&server.join().unwrap()[0]).unwrap();
    assert_eq!(body["top_logprobs"], 5);
    let content = &body["messages"][0]["content"];
    assert_eq!(content[0]["image_url"]["url"], "data:image/png;base64,iVBORw==");
    assert_eq!(content[1]["text"], "Well?");
}

#[test]
fn a_busy_server_is_asked_again() {
    let busy = || (503, "warming up".to_owned());
    let (url, server) = serve(vec![busy(), busy(), reply(&[("No", 1.0)])]);
    assert_eq!(judge(url, 3).judge(&[REQUEST]).unwrap()[0].p_yes(), Some(0.0));
    server.join().unwrap();
}

#[test]
fn failures_say_what_the_server_said() {
    for (replies, attempts, part) in [
        (
            vec![(503, "warming up".to_owned()); 2],
            2,
            "503 Service Unavailable: warming up (attempt 2 of 2)",
        ),
        (
            vec![(404, "no such model".to_owned())],
            3,
            "404 Not Found: no such model (attempt 1 of 3)",
        ),
        (vec![(200, "{}".to_owned())], 3, "not a reply"),
        (
            vec![(200, r#"{"choices":[{"logprobs":null}]}"#.to_owned())],
            3,
            "must support `logprobs`",
        ),
    ] {
        let (url, server) = serve(replies);
        let error = judge(url, attempts).judge(&[REQUEST]).unwrap_err().to_string();
        assert!(error.contains(part), "{error}");
        server.join().unwrap();
    }
}

/// The server takes one connection after the other; answers still belong to their questions.
#[test]
fn questions_asked_together_keep_their_answers() {
    let texts: Vec<String> = (0..9).map(|i| format!("question {i}")).collect();
    let (url, server) = serve(vec![reply(&[("Yes", 0.5), ("No", 0.5)]); 9]);
    let mut judge = judge(url, 1);
    judge.config.parallel = 4;
    let ask = |t: &String| JudgeRequest { image: b"\x89PNG", question: t.clone().leak() };
    let requests: Vec<_> = texts.iter().map(ask).collect();
    assert_eq!(judge.judge(&requests).unwrap().len(), 9);
    let mut asked = server.join().unwrap();
    asked.sort();
    for (body, text) in asked.iter().zip(&texts) {
        assert!(body.contains(text), "each question once");
    }
    assert_eq!(judge.judge(&[]).unwrap(), []);
}

#[test]
fn nobody_there_is_an_error_and_never_a_score() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}/v1", listener.local_addr().unwrap());
    drop(listener);
    let error = judge(url, 2).judge(&[REQUEST]).unwrap_err().to_string();
    assert!(error.contains("attempt 2 of 2"), "{error}");
    let config = ServerConfig { url: "https://x/v1".into(), ..judge("http://x".into(), 1).config };
    assert!(JudgeServer::new(config).err().unwrap().to_string().contains("http://"));
}
