//! A judge behind an OpenAI-compatible HTTP server, such as a locally served reward model.

use std::{
    sync::atomic::{AtomicUsize, Ordering},
    thread,
    time::Duration,
};

use base64::{Engine, engine::general_purpose::STANDARD};
use serde::Deserialize;
use serde_json::json;

use super::{Judge, JudgeRequest, YesNo};
use crate::{Error, Result};

/// Longest part of a server's complaint that is repeated.
const MAX_COMPLAINT: usize = 300;

/// Address and patience.
#[derive(Clone, Debug, PartialEq)]
pub struct ServerConfig {
    /// Up to and including `/v1`, such as `http://localhost:8000/v1`. No TLS.
    pub url: String,
    /// Name of the model.
    pub model: String,
    /// Attempts per question, at least 1.
    pub attempts: u32,
    /// Wait before the second attempt in milliseconds; doubles each time.
    pub backoff_ms: u64,
    /// Limit per attempt in milliseconds.
    pub timeout_ms: u64,
    /// Questions asked at the same time, at least 1.
    pub parallel: usize,
    /// Log-probabilities asked for at the one token; servers allow 5 to 20.
    pub top_logprobs: u32,
}

/// The judge.
pub struct JudgeServer {
    config: ServerConfig,
    agent: ureq::Agent,
}

#[derive(Deserialize)]
struct Reply {
    choices: Vec<Choice>,
}

#[derive(Deserialize)]
struct Choice {
    logprobs: Option<Logprobs>,
}

#[derive(Deserialize)]
struct Logprobs {
    content: Option<Vec<Position>>,
}

#[derive(Deserialize)]
struct Position {
    top_logprobs: Vec<Token>,
}

#[derive(Deserialize)]
struct Token {
    token: String,
    logprob: f64,
}

/// Why one attempt failed, and whether another may succeed.
struct Failure {
    reason: String,
    retry: bool,
}

impl JudgeServer {
    /// Connects to nothing yet.
    ///
    /// # Errors
    /// [`Error::Judge`] for an address that is not `http://`.
    pub fn new(config: ServerConfig) -> Result<Self> {
        if !config.url.starts_with("http://") {
            let reason = "the address must begin with http://; put a proxy before a TLS server";
            return Err(Error::Judge { url: config.url, reason: reason.into() });
        }
        let agent = ureq::Agent::config_builder()
            .timeout_global(Some(Duration::from_millis(config.timeout_ms)))
            .http_status_as_error(false)
            .build()
            .new_agent();
        Ok(Self { config, agent })
    }

    fn ask(&self, request: &JudgeRequest<'_>) -> Result<YesNo> {
        let body = self.body(request).to_string();
        let mut wait = Duration::from_millis(self.config.backoff_ms);
        let attempts = self.config.attempts.max(1);
        for attempt in 1..=attempts {
            match self.send(&body) {
                Ok(answer) => return Ok(answer),
                Err(failure) if failure.retry && attempt < attempts => {
                    thread::sleep(wait);
                    wait *= 2;
                }
                Err(failure) => {
                    let reason = format!("{} (attempt {attempt} of {attempts})", failure.reason);
                    return Err(Error::Judge { url: self.config.url.clone(), reason });
                }
            }
        }
        unreachable!("the last attempt returns")
    }

    fn body(&self, request: &JudgeRequest<'_>) -> serde_json::Value {
        let kind = match request.image {
            [0x89, b'P', ..] => "png",
            [b'R', b'I', b'F', b'F', ..] => "webp",
            [b'G', b'I', b'F', ..] => "gif",
            _ => "jpeg",
        };
        let url = format!("data:image/{kind};base64,{}", STANDARD.encode(request.image));
        json!({
            "model": self.config.model,
            "messages": [{ "role": "user", "content": [
                { "type": "image_url", "image_url": { "url": url } },
                { "type": "text", "text": request.question },
            ]}],
            "max_tokens": 1,
            "temperature": 0.0,
            "logprobs": true,
            "top_logprobs": self.config.top_logprobs,
        })
    }

    fn send(&self, body: &str) -> std::result::Result<YesNo, Failure> {
        let url = format!("{}/chat/completions", self.config.url.trim_end_matches('/'));
        let failed = |e: ureq::Error| Failure { reason: e.to_string(), retry: true };
        let request = self.agent.post(&url).header("content-type", "application/json");
        let mut response = request.send(body).map_err(failed)?;
        let status = response.status();
        let text = response.body_mut().read_to_string().map_err(failed)?;
        if !status.is_success() {
            let complaint: String = text.chars().take(MAX_COMPLAINT).collect();
            let retry = status.is_server_error() || matches!(status.as_u16(), 408 | 429);
            return Err(Failure { reason: format!("status {status}: {complaint}"), retry });
        }
        read_reply(&text).map_err(|reason| Failure { reason, retry: false })
    }
}

fn read_reply(text: &str) -> std::result::Result<YesNo, String> {
    let reply: Reply = serde_json::from_str(text).map_err(|e| format!("not a reply: {e}"))?;
    let position = reply
        .choices
        .first()
        .and_then(|c| c.logprobs.as_ref()?.content.as_ref()?.first())
        .ok_or("the reply has no log-probabilities; the server must support `logprobs`")?;
    Ok(YesNo::from_tokens(position.top_logprobs.iter().map(|t| (t.token.as_str(), t.logprob))))
}

impl Judge for JudgeServer {
    fn judge(&mut self, requests: &[JudgeRequest<'_>]) -> Result<Vec<YesNo>> {
        let (this, next) = (&*self, AtomicUsize::new(0));
        let work = || {
            let mut answers = Vec::new();
            while let Some((i, request)) = {
                let i = next.fetch_add(1, Ordering::Relaxed);
                requests.get(i).map(|request| (i, request))
            } {
                let answer = this.ask(request);
                // After one failure nobody begins another question.
                if answer.is_err() {
                    next.store(requests.len(), Ordering::Relaxed);
                }
                answers.push((i, answer));
            }
            answers
        };
        let mut answers = thread::scope(|scope| {
            let workers = self.config.parallel.clamp(1, requests.len().max(1));
            let handles: Vec<_> = (0..workers).map(|_| scope.spawn(work)).collect();
            let joined = handles.into_iter().flat_map(|h| h.join().unwrap_or_default());
            joined.collect::<Vec<_>>()
        });
        answers.sort_by_key(|(i, _)| *i);
        answers.into_iter().map(|(_, answer)| answer).collect()
    }
}

#[cfg(test)]
mod tests;
