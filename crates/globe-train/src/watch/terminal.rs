//! A live view of a run in the terminal: curves, numbers, the best and worst answer.

use std::{
    collections::BTreeMap,
    io,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use ratatui::{
    DefaultTerminal, Frame,
    crossterm::{
        cursor,
        event::{self, Event, KeyCode, KeyModifiers},
        execute,
    },
    layout::{Constraint, Layout, Rect},
    style::{Color, Modifier, Style},
    symbols::Marker,
    text::{Line, Span},
    widgets::{Axis, Block, Chart, Dataset, GraphType, Paragraph, Wrap},
};

use super::lines::{clock, remaining, short};
use crate::{
    Error, Result,
    trainer::{AnswerReport, Observer, SampleReport, StepStats, TrainEvent},
};

/// Points kept per curve; older ones are thinned.
const MAX_POINTS: usize = 2000;

/// Curves: title, and the metrics in it.
const CHARTS: &[(&str, &[&str])] = &[
    ("reward", &["reward", "loss", "eval_loss"]),
    ("kl", &["kl"]),
    ("entropy", &["entropy"]),
    ("clipped", &["clip_ratio/region_mean"]),
    ("length", &["completions/mean_length"]),
];

const COLORS: &[Color] =
    &[Color::Cyan, Color::Yellow, Color::Green, Color::Magenta, Color::Blue, Color::Red];

/// What is shown, apart from any terminal.
#[derive(Default)]
pub struct Dashboard {
    curves: BTreeMap<String, Vec<(f64, f64)>>,
    last: StepStats,
    step: u64,
    total: u64,
    first_step: u64,
    started: Option<Instant>,
    sample: Option<SampleReport>,
    message: String,
}

impl Dashboard {
    /// Takes in an event.
    pub fn update(&mut self, event: &TrainEvent<'_>) {
        match event {
            TrainEvent::Started { step, total, .. } => {
                (self.step, self.first_step, self.total) = (*step, *step, *total);
                self.started = Some(Instant::now());
            }
            TrainEvent::Step(stats) => self.add(stats),
            TrainEvent::Samples { samples, .. } => self.sample = samples.first().cloned(),
            TrainEvent::Checkpoint(path) => self.message = format!("saved {}", path.display()),
            TrainEvent::Warning(text) => self.message = format!("warning: {text}"),
            TrainEvent::Ended { complete, .. } => {
                self.message = if *complete { "done" } else { "stopped" }.into();
            }
        }
    }

    fn add(&mut self, stats: &StepStats) {
        for (name, &value) in stats.values.iter().filter(|(_, v)| v.is_finite()) {
            let curve = self.curves.entry(name.clone()).or_default();
            curve.push((stats.step as f64, value));
            if curve.len() > MAX_POINTS {
                let mut i = 0;
                curve.retain(|_| {
                    i += 1;
                    i % 2 == 0
                });
            }
        }
        self.step = stats.step;
        self.last = stats.clone();
    }

    /// Draws everything.
    pub fn draw(&self, frame: &mut Frame<'_>) {
        let [head, charts, parts, answers, foot] = Layout::vertical([
            Constraint::Length(2),
            Constraint::Percentage(40),
            Constraint::Percentage(25),
            Constraint::Min(4),
            Constraint::Length(1),
        ])
        .areas(frame.area());
        frame.render_widget(Paragraph::new(self.head()), head);
        self.draw_charts(frame, charts);
        self.draw_parts(frame, parts);
        self.draw_answers(frame, answers);
        let help = format!("q or Ctrl-C: save and stop    {}", self.message);
        frame.render_widget(Paragraph::new(help).style(Modifier::DIM), foot);
    }

    fn head(&self) -> Vec<Line<'static>> {
        let elapsed = self.started.map_or(Duration::ZERO, |s| s.elapsed());
        let left = self.total.saturating_sub(self.step);
        let eta = remaining(elapsed, self.step - self.first_step, left);
        let value = |name: &str| self.last.values.get(name).copied();
        let mut first = format!("step {}/{}", self.step, self.total);
        if let Some(eta) = eta {
            first.push_str(&format!("   left {}", clock(eta)));
        }
        let numbers = |names: &[(&str, &str)]| {
            let found = names.iter().filter_map(|(name, label)| Some((label, value(name)?)));
            found.map(|(label, v)| format!("   {label} {}", short(v))).collect::<String>()
        };
        first += &numbers(&[("time/step_s", "s/step"), ("time/rollout_tokens_per_s", "tokens/s")]);
        if let Some(bytes) = value("memory/device_bytes") {
            let mib = bytes / f64::from(1 << 20);
            first += &match mib {
                1024.0.. => format!("   memory {:.2} GiB", mib / 1024.0),
                _ => format!("   memory {mib:.1} MiB"),
            };
        }
        let second = numbers(&[
            ("learning_rate", "lr"),
            ("grad_norm", "norm"),
            ("frac_reward_zero_std", "equal groups"),
            ("completions/clipped_ratio", "cut off"),
            ("skipped_steps", "skipped"),
            ("data/bad_images", "bad photos"),
        ]);
        vec![Line::styled(first, Modifier::BOLD), Line::raw(second.trim_start().to_owned())]
    }

    fn draw_charts(&self, frame: &mut Frame<'_>, area: Rect) {
        let present: Vec<_> = CHARTS
            .iter()
            .filter_map(|(title, names)| {
                let name = names.iter().find(|n| self.curves.contains_key(**n))?;
                Some((*title, *name))
            })
            .collect();
        let areas = Layout::horizontal(present.iter().map(|_| Constraint::Fill(1))).split(area);
        for ((title, name), &area) in present.iter().zip(areas.iter()) {
            let title = if *name == "reward" || *title != "reward" { *title } else { *name };
            self.chart(frame, area, title, &[(*name).to_owned()]);
        }
    }

    /// Means of the single rewards.
    fn draw_parts(&self, frame: &mut Frame<'_>, area: Rect) {
        let is_part = |n: &&String| n.starts_with("rewards/") && n.ends_with("/mean");
        let names: Vec<String> = self.curves.keys().filter(is_part).cloned().collect();
        if !names.is_empty() {
            self.chart(frame, area, "reward parts", &names);
        }
    }

    fn chart(&self, frame: &mut Frame<'_>, area: Rect, title: &str, names: &[String]) {
        let curves: Vec<&[(f64, f64)]> =
            names.iter().filter_map(|n| self.curves.get(n)).map(Vec::as_slice).collect();
        let points = || curves.iter().flat_map(|c| c.iter().copied());
        let Some((x, y)) = bounds(points()) else {
            return;
        };
        let label =
            |name: &str| name.trim_start_matches("rewards/").trim_end_matches("/mean").to_owned();
        let sets = curves
            .iter()
            .zip(COLORS.iter().cycle())
            .map(|(curve, &color)| {
                Dataset::default()
                    .data(curve)
                    .marker(Marker::Braille)
                    .graph_type(GraphType::Line)
                    .style(Style::new().fg(color))
            })
            .collect();
        // A legend would hide when space is short: the title names the curves in their colours.
        let mut title = vec![Span::raw(title.to_owned())];
        for ((curve, name), &color) in curves.iter().zip(names).zip(COLORS.iter().cycle()) {
            let name = if names.len() > 1 { label(name) } else { String::new() };
            let last = curve.last().map(|p| short(p.1)).unwrap_or_default();
            title.push(Span::styled(format!(" {name} {last}").replace("  ", " "), color));
        }
        let chart = Chart::new(sets)
            .block(Block::bordered().title(Line::from(title)))
            .x_axis(Axis::default().bounds(x))
            .y_axis(Axis::default().bounds(y).labels([short(y[0]), short(y[1])]));
        frame.render_widget(chart, area);
    }

    fn draw_answers(&self, frame: &mut Frame<'_>, area: Rect) {
        let Some(sample) = &self.sample else {
            return;
        };
        let by_total = |a: &&AnswerReport, b: &&AnswerReport| {
            a.total.unwrap_or(f64::MIN).total_cmp(&b.total.unwrap_or(f64::MIN))
        };
        let best = sample.answers.iter().max_by(by_total);
        let worst = sample.answers.iter().min_by(by_total);
        let areas = Layout::horizontal([Constraint::Fill(1), Constraint::Fill(1)]).split(area);
        for ((title, answer), &area) in
            [("best", best), ("worst", worst)].into_iter().zip(areas.iter())
        {
            let Some(answer) = answer else { continue };
            let total = answer.total.map(short).unwrap_or_else(|| "-".into());
            let title = format!("{title} {total} of {} ({})", sample.id, sample.truth);
            // A control character in an answer must not reach the terminal.
            let text: String = answer
                .text
                .chars()
                .map(|c| if c.is_control() && c != '\n' { ' ' } else { c })
                .collect();
            let text = Paragraph::new(text).wrap(Wrap { trim: true });
            frame.render_widget(text.block(Block::bordered().title(title)), area);
        }
    }
}

/// Ranges of both axes, a little wider than the points; none without points.
fn bounds(points: impl Iterator<Item = (f64, f64)>) -> Option<([f64; 2], [f64; 2])> {
    let mut all: Option<([f64; 2], [f64; 2])> = None;
    for (px, py) in points {
        let (x, y) = all.get_or_insert(([px; 2], [py; 2]));
        *x = [x[0].min(px), x[1].max(px)];
        *y = [y[0].min(py), y[1].max(py)];
    }
    all.map(|(x, y)| {
        // A flat curve lies in the middle of an axis whose ends can be told apart.
        let flat = if y[1] > y[0] { 0.0 } else { (y[1].abs() * 0.05).max(1e-3) };
        let margin = ((y[1] - y[0]) * 0.05).max(flat);
        ([x[0], x[1].max(x[0] + 1.0)], [y[0] - margin, y[1] + margin])
    })
}

/// How often keys are looked for.
const KEY_PERIOD: Duration = Duration::from_millis(100);

/// What is shown while the current step ends.
const STOPPING: &str = "stopping after this step, with a checkpoint; once more stops at once";

/// The dashboard on the real terminal. Dropping it gives the terminal back.
///
/// Keys are read beside the run: a step may take minutes.
pub struct TerminalUi {
    screen: Arc<Mutex<Screen>>,
    is_closed: Arc<AtomicBool>,
    keys: Option<JoinHandle<()>>,
}

/// A dashboard and where it is drawn.
struct Screen {
    dashboard: Dashboard,
    terminal: DefaultTerminal,
}

impl Screen {
    fn draw(&mut self) -> io::Result<()> {
        let dashboard = &self.dashboard;
        self.terminal.draw(|frame| dashboard.draw(frame)).map(|_| ())
    }
}

impl TerminalUi {
    /// Takes the terminal over. `stop` is set when the user asks to stop; asked twice, the terminal
    /// is given back and the process ends at once, with exit status 130.
    ///
    /// # Errors
    /// [`Error::Io`] if there is no terminal: use [`super::Lines`] then.
    pub fn start(stop: Arc<AtomicBool>) -> Result<Self> {
        let terminal = ratatui::try_init().map_err(Error::io("cannot use", "the terminal"))?;
        let screen = Arc::new(Mutex::new(Screen { dashboard: Dashboard::default(), terminal }));
        let is_closed = Arc::new(AtomicBool::new(false));
        let keys = {
            let (screen, is_closed) = (screen.clone(), is_closed.clone());
            thread::spawn(move || watch_keys(&screen, &stop, &is_closed))
        };
        Ok(Self { screen, is_closed, keys: Some(keys) })
    }
}

/// Until the view is closed: sets `stop` when asked, shows when it is set, by whomever, and draws anew
/// when the size changes. A terminal that cannot be read any more is noticed by whoever draws on it.
fn watch_keys(screen: &Mutex<Screen>, stop: &AtomicBool, is_closed: &AtomicBool) {
    let mut shows_stop = false;
    while !is_closed.load(Ordering::Relaxed) {
        let Ok(has_event) = event::poll(KEY_PERIOD) else { return };
        let event = if has_event { event::read().ok() } else { None };
        if event.as_ref().is_some_and(asks_to_stop) && stop.swap(true, Ordering::Relaxed) {
            give_terminal_back();
            std::process::exit(130);
        }
        let stops = stop.load(Ordering::Relaxed) && !shows_stop;
        if stops || matches!(event, Some(Event::Resize(..))) {
            let mut screen = screen.lock().unwrap_or_else(PoisonError::into_inner);
            if stops {
                screen.dashboard.message = STOPPING.into();
                shows_stop = true;
            }
            if screen.draw().is_err() {
                return;
            }
        }
    }
}

/// True for `q` and Ctrl-C going down.
fn asks_to_stop(event: &Event) -> bool {
    let Event::Key(key) = event else { return false };
    let interrupt = key.modifiers.contains(KeyModifiers::CONTROL) && key.code == KeyCode::Char('c');
    key.is_press() && (interrupt || key.code == KeyCode::Char('q'))
}

/// Gives back a terminal that a [`TerminalUi`] has, for an end at once.
pub fn give_terminal_back() {
    ratatui::restore();
    // The view hides it. There is nowhere to report that this failed.
    let _ = execute!(io::stdout(), cursor::Show);
}

impl Observer for TerminalUi {
    fn on(&mut self, event: &TrainEvent<'_>) -> Result<()> {
        let mut screen = self.screen.lock().unwrap_or_else(PoisonError::into_inner);
        screen.dashboard.update(event);
        screen.draw().map_err(Error::io("cannot draw on", "the terminal"))
    }
}

impl Drop for TerminalUi {
    fn drop(&mut self) {
        self.is_closed.store(true, Ordering::Relaxed);
        if let Some(keys) = self.keys.take() {
            // It cannot have failed in a way that matters here.
            let _ = keys.join();
        }
        give_terminal_back();
    }
}

#[cfg(test)]
mod tests {
    use ratatui::{Terminal, backend::TestBackend};

    use super::*;

    fn dashboard(steps: u64) -> Dashboard {
        let mut dashboard = Dashboard::default();
        dashboard.update(&TrainEvent::Started { step: 0, total: 5000, weights: &[] });
        for step in 1..=steps {
            let x = step as f64;
            let values = [
                ("reward", x.sqrt()),
                ("kl", 0.001 * x),
                ("entropy", f64::NAN),
                ("rewards/geo/mean", 0.5),
                ("rewards/visual/mean", -0.5),
                ("memory/device_bytes", 3e9),
            ];
            let values = values.map(|(n, v)| (n.to_owned(), v)).into();
            dashboard.update(&TrainEvent::Step(&StepStats { step, values }));
        }
        let answer = |text: &str, total| AnswerReport {
            text: text.into(),
            parts: vec![],
            total: Some(total),
            advantage: 0.0,
            truncated: false,
            tokens: 3,
        };
        let sample = SampleReport {
            id: "row 7".into(),
            truth: "Paris, France".into(),
            image: vec![],
            names: vec![],
            answers: vec![answer("a \u{1b}[31mbad one", 0.1), answer("a good one", 1.5)],
        };
        dashboard.update(&TrainEvent::Samples { step: 0, samples: &[sample] });
        dashboard
    }

    fn shown(dashboard: &Dashboard, width: u16, height: u16) -> String {
        let mut terminal = Terminal::new(TestBackend::new(width, height)).unwrap();
        terminal.draw(|frame| dashboard.draw(frame)).unwrap();
        terminal.backend().to_string()
    }

    #[test]
    fn curves_parts_and_answers_are_shown() {
        let text = shown(&dashboard(30), 110, 40);
        for part in [
            "step 30/5000",
            "reward 5.477",
            "kl 0.030",
            "reward parts geo 0.500 visual -0.500",
            "best 1.500 of row 7 (Paris, France)",
            "worst 0.100",
            "a good one",
            "memory 2.79 GiB",
            "save and stop",
        ] {
            assert!(text.contains(part), "{part} in\n{text}");
        }
        assert!(!text.contains('\u{1b}'), "no control characters");
        assert!(text.chars().filter(|c| ('\u{2801}'..='\u{28ff}').contains(c)).count() > 20);
    }

    #[test]
    fn keys_that_stop() {
        let key = |code, modifiers| Event::Key(event::KeyEvent::new(code, modifiers));
        assert!(asks_to_stop(&key(KeyCode::Char('q'), KeyModifiers::NONE)));
        assert!(asks_to_stop(&key(KeyCode::Char('c'), KeyModifiers::CONTROL)));
        assert!(!asks_to_stop(&key(KeyCode::Char('c'), KeyModifiers::NONE)));
        assert!(!asks_to_stop(&Event::Resize(80, 24)));
        let mut release = event::KeyEvent::new(KeyCode::Char('q'), KeyModifiers::NONE);
        release.kind = event::KeyEventKind::Release;
        assert!(!asks_to_stop(&Event::Key(release)), "one stroke is not two");
    }

    #[test]
    fn tiny_terminals_and_empty_runs_are_no_problem() {
        for (width, height) in [(1, 1), (10, 3), (200, 2), (20, 60)] {
            shown(&dashboard(0), width, height);
            shown(&dashboard(3), width, height);
            shown(&Dashboard::default(), width, height);
        }
    }

    #[test]
    fn long_runs_keep_a_bounded_number_of_points() {
        let dashboard = dashboard(9000);
        let curve = &dashboard.curves["reward"];
        assert!(curve.len() <= MAX_POINTS && curve.len() > MAX_POINTS / 4);
        assert_eq!(curve.last().map(|p| p.0), Some(9000.0));
        assert!(!dashboard.curves.contains_key("entropy"), "NaN is no point");
    }
}
