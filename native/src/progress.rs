//! Progress on standard error: a bar on a terminal, and the model's text as it appears.

use std::time::Duration;

use globe_engine::Event;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use crate::console::{printable, say};

/// Characters of model text before its line is broken.
const WRAP: usize = 100;

/// A progress bar; invisible when quiet and where standard error is not a terminal.
pub struct Progress {
    bar: ProgressBar,
    quiet: bool,
}

impl Progress {
    /// For the tensors of a model.
    pub fn loading(quiet: bool) -> Self {
        // Until their number is known, an unfinished bar is right.
        Self::new(1, "loading the model [{bar:30}] {pos}/{len} {elapsed}", quiet)
    }

    /// For images.
    pub fn images(len: usize, quiet: bool) -> Self {
        Self::new(len, "[{bar:20}] {pos}/{len} images {elapsed} {wide_msg}", quiet)
    }

    /// For the bytes of a step called `what`.
    pub fn bytes(what: &str, quiet: bool) -> Self {
        let template = "{msg} [{bar:30}] {bytes}/{total_bytes} {bytes_per_sec} {eta}";
        let progress = Self::new(1, template, quiet);
        progress.bar.set_message(what.to_owned());
        progress
    }

    fn new(len: usize, template: &str, quiet: bool) -> Self {
        let target =
            if quiet { ProgressDrawTarget::hidden() } else { ProgressDrawTarget::stderr() };
        let bar = ProgressBar::with_draw_target(Some(len as u64), target);
        let style = ProgressStyle::with_template(template);
        bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()).progress_chars("=> "));
        bar.enable_steady_tick(Duration::from_millis(250));
        Self { bar, quiet }
    }

    /// Sets what is done and how much there is.
    pub fn set(&self, done: usize, all: usize) {
        self.bar.set_length(all as u64);
        self.bar.set_position(done as u64);
    }

    /// One more is done.
    pub fn advance(&self) {
        self.bar.inc(1);
    }

    /// A line that stays, unless quiet.
    pub fn note(&self, line: &str) {
        if !self.quiet {
            self.error(line);
        }
    }

    /// A line that stays, in any case.
    pub fn error(&self, line: &str) {
        self.bar.suspend(|| say(format_args!("{line}")));
    }

    /// Runs something that writes to the terminal.
    pub fn suspend<T>(&self, write: impl FnOnce() -> T) -> T {
        self.bar.suspend(write)
    }

    /// Takes the bar away.
    pub fn clear(&self) {
        self.bar.finish_and_clear();
    }
}

/// Follows the answers to one image. They come in turn, token by token; one is shown at a time,
/// and what the others say meanwhile waits.
pub struct Answers<'a> {
    progress: &'a Progress,
    image: &'a str,
    samples: u32,
    /// Whether the text is shown as well.
    show_text: bool,
    n_tokens: usize,
    waiting: Vec<Waiting>,
    shown: usize,
    line: String,
}

/// One answer as far as it has come.
#[derive(Default)]
struct Waiting {
    text: String,
    is_announced: bool,
    has_ended: bool,
}

impl<'a> Answers<'a> {
    /// Nothing has happened yet.
    pub fn new(progress: &'a Progress, image: &'a str, samples: u32, show_text: bool) -> Self {
        progress.bar.set_message("reading the image");
        let waiting = (0..samples).map(|_| Waiting::default()).collect();
        let (n_tokens, line) = (0, String::new());
        Self { progress, image, samples, show_text, n_tokens, waiting, shown: 0, line }
    }

    /// Shows one event.
    pub fn on_event(&mut self, event: Event) {
        match event {
            Event::Prepared { prompt_tokens, .. } => {
                let text = format!("reading {prompt_tokens} tokens of image and prompt");
                self.progress.bar.set_message(text);
            }
            Event::Encoded | Event::Prefilled => {}
            Event::Token { sample, text, .. } => {
                self.n_tokens += 1;
                let (tokens, of) = (self.n_tokens, self.samples);
                let ended = self.waiting.iter().filter(|answer| answer.has_ended).count();
                let message = format!("{tokens} tokens, {ended} of {of} answers complete");
                self.progress.bar.set_message(message);
                self.take(sample, text, false);
            }
            Event::Ended { sample, text, .. } => self.take(sample, text, true),
        }
    }

    fn take(&mut self, sample: u32, text: &str, has_ended: bool) {
        let Some(answer) = self.waiting.get_mut(sample as usize) else { return };
        answer.text += text;
        answer.has_ended = has_ended;
        if self.show_text {
            self.show();
        }
    }

    /// Shows what the answer in front has said, and goes on to the next when it has ended.
    fn show(&mut self) {
        while let Some(answer) = self.waiting.get_mut(self.shown) {
            let text = std::mem::take(&mut answer.text);
            let has_ended = answer.has_ended;
            if !answer.is_announced {
                answer.is_announced = true;
                let which = format!("answer {} of {}", self.shown + 1, self.samples);
                self.progress.note(&format!("{}: {which} (model text, not evidence)", self.image));
            }
            for c in printable(&text).chars() {
                match c {
                    '\n' => self.flush(),
                    ' ' if self.line.chars().count() >= WRAP => self.flush(),
                    _ => self.line.push(c),
                }
            }
            if !has_ended {
                return;
            }
            self.flush();
            self.shown += 1;
        }
    }

    /// Text appears line by line, since a bar may stand below it.
    fn flush(&mut self) {
        if !self.line.trim().is_empty() {
            self.progress.note(&format!("  | {}", self.line.trim_end()));
        }
        self.line.clear();
    }
}
