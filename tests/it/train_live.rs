//! The live view of training on a terminal, with its keys: the program runs on a pseudo-terminal, and what
//! it draws is read as a terminal would show it.
#![cfg(unix)]

use std::fs::File;
use std::io::{Read, Write};
use std::path::Path;
use std::process::{Child, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::Instant;

use globe_train::checkpoint::Store;
use nix::pty::{Winsize, openpty};

use crate::train_cli::{PATIENCE, SHORT, settings, train};

const ROWS: u16 = 40;
const COLUMNS: u16 = 120;

/// A run and the terminal that it has to itself.
struct Live {
    child: Child,
    keys: File,
    drawn: Receiver<Vec<u8>>,
    terminal: vt100::Parser,
}

impl Live {
    fn start(settings: &Path) -> Self {
        let size = Winsize { ws_row: ROWS, ws_col: COLUMNS, ws_xpixel: 0, ws_ypixel: 0 };
        let pty = openpty(&size, None).unwrap();
        let side = || Stdio::from(pty.slave.try_clone().unwrap());
        let mut command = train("grpo", settings, &[]);
        let child = command.stdin(side()).stdout(side()).stderr(side()).spawn().unwrap();
        drop((command, pty.slave)); // or reading would never end
        let keys = File::from(pty.master);
        let mut shown = keys.try_clone().unwrap();
        let (send, drawn) = channel();
        std::thread::spawn(move || {
            let mut buffer = [0; 4096];
            // A pseudo-terminal whose other side is closed is an error, not an end.
            while let Ok(n @ 1..) = shown.read(&mut buffer) {
                if send.send(buffer[..n].to_vec()).is_err() {
                    return;
                }
            }
        });
        Self { child, keys, drawn, terminal: vt100::Parser::new(ROWS, COLUMNS, 0) }
    }

    fn screen(&self) -> String {
        self.terminal.screen().contents()
    }

    /// Waits until the screen shows `sign`.
    fn wait_for(&mut self, sign: &str) {
        let start = Instant::now();
        while !self.screen().contains(sign) {
            match self.drawn.recv_timeout(PATIENCE.saturating_sub(start.elapsed())) {
                Ok(bytes) => self.terminal.process(&bytes),
                Err(end) => panic!("`{sign}` is not shown ({end}):\n{}", self.screen()),
            }
        }
    }

    fn press(&mut self, keys: &str) {
        self.keys.write_all(keys.as_bytes()).unwrap();
    }

    /// The exit code, once everything was drawn and the terminal given back.
    fn end(mut self) -> (Option<i32>, String) {
        let start = Instant::now();
        loop {
            match self.drawn.recv_timeout(PATIENCE.saturating_sub(start.elapsed())) {
                Ok(bytes) => self.terminal.process(&bytes),
                Err(RecvTimeoutError::Disconnected) => break,
                Err(RecvTimeoutError::Timeout) => panic!("it goes on:\n{}", self.screen()),
            }
        }
        let screen = self.terminal.screen();
        assert!(!screen.alternate_screen(), "what was on the terminal before is back");
        assert!(!screen.hide_cursor(), "the cursor is shown");
        (self.child.wait().unwrap().code(), self.screen())
    }
}

fn saved(folder: &Path) -> Vec<u64> {
    Store::new(folder.join("run/checkpoints"), 0).steps().unwrap()
}

#[test]
fn the_view_shows_the_run_and_q_saves_and_stops() {
    let temp = tempfile::tempdir().unwrap();
    let changes = [&SHORT[..], &[("steps", "40"), ("every", "100")]].concat();
    let mut live = Live::start(&settings("tiny.toml", temp.path(), &changes));
    live.wait_for("step 2/40");
    for part in
        ["reward", "entropy", "clipped", "length", "best", "worst", "tokens/s", "q or Ctrl-C"]
    {
        assert!(live.screen().contains(part), "{part}:\n{}", live.screen());
    }
    assert!(live.terminal.screen().alternate_screen() && live.terminal.screen().hide_cursor());
    live.press("x"); // means nothing
    live.press("q");
    live.wait_for("stopping after this step");
    let (code, screen) = live.end();
    assert_eq!(code, Some(130), "{screen}");
    assert!(screen.contains("--resume"), "{screen}");
    let steps = saved(temp.path());
    assert!(steps.len() == 1 && (2..40).contains(&steps[0]), "{steps:?}");
}

#[test]
fn ctrl_c_twice_in_the_view_stops_at_once() {
    let temp = tempfile::tempdir().unwrap();
    // A long step: both keys come within the first.
    let changes = [("max_tokens", "400"), ("steps", "4"), ("every", "1")];
    let mut live = Live::start(&settings("tiny.toml", temp.path(), &changes));
    live.wait_for("step 0/4");
    live.press("\x03");
    live.wait_for("stopping after this step");
    let start = Instant::now();
    live.press("\x03");
    let (code, screen) = live.end();
    assert_eq!(code, Some(130), "{screen}");
    assert!(start.elapsed() < PATIENCE);
    assert_eq!(saved(temp.path()), [0; 0]);
}
