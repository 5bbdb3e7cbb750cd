//! The live view: a full terminal, or a plain line a second.

use super::sample::{QueueNow, Sample};
use ratatui::DefaultTerminal;
use ratatui::Frame;
use ratatui::crossterm::event::{self, Event, KeyCode, KeyModifiers};
use ratatui::layout::{Constraint, Layout, Rect};
use ratatui::style::{Color, Style, Stylize};
use ratatui::text::Line;
use ratatui::widgets::{Block, Gauge, Paragraph, Sparkline};
use std::io::Write;
use std::time::Duration;

/// Shows samples until it is dropped.
pub enum View {
    Screen(Box<DefaultTerminal>),
    /// A line each time another second has begun, to standard error if the output proper is JSON.
    Lines {
        second: u64,
        to_stderr: bool,
    },
}

impl View {
    /// The screen when there is one that takes it.
    pub fn open(terminal: bool, json: bool) -> View {
        let lines = View::Lines { second: 0, to_stderr: json };
        if !terminal {
            return lines;
        }
        match ratatui::try_init() {
            Ok(screen) => View::Screen(Box::new(screen)),
            Err(_) => lines,
        }
    }

    /// Shows one moment; true when the user wants to stop.
    pub fn show(&mut self, s: &Sample) -> bool {
        match self {
            View::Screen(screen) => {
                // A screen that cannot be drawn is no reason to end the calls.
                let _ = screen.draw(|frame| draw(frame, s));
                wants_to_stop()
            }
            View::Lines { second, to_stderr } => {
                if s.elapsed.as_secs() > *second {
                    *second = s.elapsed.as_secs();
                    let line = line(s);
                    let _ = if *to_stderr {
                        writeln!(std::io::stderr(), "{line}")
                    } else {
                        writeln!(std::io::stdout(), "{line}")
                    };
                }
                false
            }
        }
    }
}

impl Drop for View {
    fn drop(&mut self) {
        if let View::Screen(_) = self {
            let _ = ratatui::try_restore();
        }
    }
}

fn wants_to_stop() -> bool {
    let mut stop = false;
    while event::poll(Duration::ZERO).unwrap_or(false) {
        if let Ok(Event::Key(key)) = event::read() {
            stop |= key.code == KeyCode::Char('q');
            stop |= key.code == KeyCode::Char('c') && key.modifiers.contains(KeyModifiers::CONTROL);
        }
    }
    stop
}

fn line(s: &Sample) -> String {
    format!(
        "{:4} s  calls: {} offered, {} queued, {} ringing, {} talking, {} answered, {} abandoned  agents: {} free, {} in call, {} in chat, \
         {} wrap-up  {:.0} calls/s, {:.0} msg/s  dispatch p99 {} us",
        s.elapsed.as_secs(),
        s.offered,
        s.queued,
        s.ringing,
        s.talking,
        s.answered,
        s.abandoned,
        s.free,
        s.in_call,
        s.in_chat,
        s.wrapup,
        s.calls_per_second,
        s.messages_per_second,
        s.dispatch_p99
    )
}

fn draw(frame: &mut Frame<'_>, s: &Sample) {
    let title = format!(" Strowger demo  {:.0} s   (q ends it) ", s.elapsed.as_secs_f64());
    let outer = Block::bordered().title(title.bold());
    let area = outer.inner(frame.area());
    frame.render_widget(outer, frame.area());
    let lines = u16::try_from(s.queues.len()).unwrap_or(u16::MAX).saturating_add(3);
    let rows = [9, lines, 3].map(Constraint::Length);
    let [top, queues, agents, graph, bottom] =
        Layout::vertical([rows[0], rows[1], rows[2], Constraint::Min(4), Constraint::Length(1)]).areas(area);
    let [calls, ended, speed] = Layout::horizontal([Constraint::Ratio(1, 3); 3]).areas(top);
    let row = |name: &str, value: String| Line::from(format!("{name:<14}{value:>12}"));
    panel(
        frame,
        calls,
        " calls now ",
        vec![
            row("on hold", s.onhold.to_string()),
            row("queued", s.queued.to_string()),
            row("agents ringing", s.ringing.to_string()),
            row("talking", s.talking.to_string()),
            row("calls/s", format!("{:.1}", s.calls_per_second)),
            row("messages/s", format!("{:.0}", s.messages_per_second)),
        ],
    );
    panel(
        frame,
        ended,
        " calls so far ",
        vec![
            row("offered", s.offered.to_string()),
            row("answered", s.answered.to_string()),
            row("abandoned", s.abandoned.to_string()),
            row("refused", s.refused.to_string()),
            row("failed", s.failed.to_string()),
            row("CDRs written", s.cdrs.to_string()),
        ],
    );
    panel(
        frame,
        speed,
        " agent free to INVITE ",
        vec![
            row("p50", format!("{} us", s.dispatch_p50)),
            row("p99", format!("{} us", s.dispatch_p99)),
            row("max", format!("{} us", s.dispatch_max)),
            row("mean wait", format!("{} s", s.wait)),
            row("rejected", s.rejected.to_string()),
        ],
    );
    panel(frame, queues, " queues ", queue_rows(s));
    agents_gauge(frame, agents, s);
    let history = Sparkline::default().data(&s.history).style(Style::new().fg(Color::Cyan));
    frame.render_widget(history.block(Block::bordered().title(" calls on hold ")), graph);
    frame.render_widget(
        Paragraph::new("callers, agents and music are simulated; every message crosses a real UDP socket".dim()),
        bottom,
    );
}

fn panel(frame: &mut Frame<'_>, area: Rect, title: &str, lines: Vec<Line<'_>>) {
    frame.render_widget(Paragraph::new(lines).block(Block::bordered().title(title.to_owned())), area);
}

fn queue_rows(s: &Sample) -> Vec<Line<'static>> {
    let head = "              priority     queued    hearing a message   agents free   answered: calls      chats";
    let row = |q: &QueueNow| {
        Line::from(format!(
            "{:<14}{:>8}{:>11}{:>21}{:>14}{:>18}{:>11}",
            q.name, q.priority, q.queued, q.hearing, q.free_agents, q.answered_calls, q.answered_chats
        ))
    };
    std::iter::once(Line::from(head.dim())).chain(s.queues.iter().map(row)).collect()
}

fn agents_gauge(frame: &mut Frame<'_>, area: Rect, s: &Sample) {
    let (busy, total) = (s.in_call + s.in_chat, s.free + s.in_call + s.in_chat + s.wrapup + s.offline);
    #[allow(clippy::cast_precision_loss)] // for the eye
    let busy = if total == 0 { 0.0 } else { busy as f64 / total as f64 };
    let label = format!(
        "{} in call, {} in chat, {} wrap-up, {} free, {} offline",
        s.in_call, s.in_chat, s.wrapup, s.free, s.offline
    );
    let gauge = Gauge::default().ratio(busy.clamp(0.0, 1.0)).label(label).gauge_style(Style::new().fg(Color::Green));
    frame.render_widget(gauge.block(Block::bordered().title(" agents ")), area);
}

#[cfg(test)]
mod tests {
    use super::*;
    use ratatui::Terminal;
    use ratatui::backend::TestBackend;

    fn sample() -> Sample {
        Sample {
            elapsed: Duration::from_secs(7),
            offered: 140,
            onhold: 12,
            talking: 31,
            in_call: 40,
            in_chat: 3,
            free: 10,
            queues: vec![QueueNow { name: "vip".to_owned(), queued: 2, ..QueueNow::default() }],
            ..Sample::default()
        }
    }

    #[test]
    fn the_screen_shows_calls_agents_and_latency_at_any_size() {
        let mut screen = Terminal::new(TestBackend::new(120, 30)).unwrap();
        screen.draw(|f| draw(f, &sample())).unwrap();
        let text: String = screen.backend().buffer().content().iter().map(|c| c.symbol()).collect();
        for part in [
            "calls now",
            "140",
            "40 in call, 3 in chat, 0 wrap-up, 10 free, 0 offline",
            "vip                  0          2",
            "agent free to INVITE",
        ] {
            assert!(text.contains(part), "{part}");
        }
        let mut tiny = Terminal::new(TestBackend::new(10, 3)).unwrap();
        tiny.draw(|f| draw(f, &sample())).unwrap();
    }

    #[test]
    fn the_plain_line_tells_the_same() {
        assert!(line(&sample()).starts_with("   7 s  calls: 140 offered, 0 queued, 0 ringing, 31 talking"));
    }
}
