//! One command's runs: against a target or two, once or in the steps of a search, all on the same sockets.

use std::{net::SocketAddr, sync::atomic::Ordering::Relaxed, thread, time::Duration};

use loadtest::{
    Generator, Goal, Interval, IntervalLog, Limit, LimitedBy, Outcome, Phase, Process, Report, Scenario, Search, Series,
};

use super::{
    Fault,
    args::Output,
    cannot_write,
    watch::{interrupted, stop_on_interrupt, while_watched},
};

/// Who is called.
pub struct Target {
    pub name: String,
    /// `None`: the generator itself, or nobody.
    pub address: Option<SocketAddr>,
    pub pid: Option<u32>,
}

/// Sockets are open, files can be written, processes are there: what can be wrong with a command line is not.
pub struct Session {
    scenario: Scenario,
    goal: Option<Goal>,
    generator: Generator,
    log: Option<IntervalLog>,
    log_fault: Option<std::io::Error>,
    several: bool,
}

/// Between two targets: nothing of the first is on its way any more.
const CALM: Duration = Duration::from_millis(500);
/// Less than this for a socket's receive buffer loses bursts.
const ENOUGH_BUFFER: usize = 4 << 20;

impl Session {
    pub fn open(scenario: Scenario, goal: Option<Goal>, output: &Output, targets: &[Target]) -> Result<Self, Fault> {
        if goal.is_some() && matches!(scenario.arrivals, loadtest::Arrivals::Listed(_)) {
            return Err("--find-max chooses the rate itself: give --arrivals poisson or fixed with it".to_owned());
        }
        let generator = Generator::bind(&scenario).map_err(|error| error.to_string())?;
        let log = output.hlog.as_deref();
        let log = log.map(|path| IntervalLog::create(path).map_err(|error| cannot_write(path, &error)));
        if let Some(path) = output.html.as_deref() {
            // A run whose report cannot be written should not begin.
            std::fs::File::create(path).map_err(|error| cannot_write(path, &error))?;
        }
        Ok(Self { scenario, goal, generator, log: log.transpose()?, log_fault: None, several: targets.len() > 1 })
    }

    /// Plays all, one target after the other.
    pub fn play(mut self, wait: Option<Duration>, targets: &[Target]) -> Result<Vec<Outcome>, Fault> {
        self.warn();
        if !self.scenario.loopback {
            self.announce(wait, targets);
        }
        // Servers may be started as late as this.
        for target in targets {
            watch_process(target)?;
        }
        stop_on_interrupt(self.generator.stop_flag());
        let live = self.generator.live();
        let outcomes = while_watched(live, || targets.iter().map(|target| self.play_one(target)).collect());
        match self.log_fault {
            Some(error) => Err(format!("cannot write the interval log: {error}")),
            None => outcomes,
        }
    }

    fn play_one(&mut self, target: &Target) -> Result<Outcome, Fault> {
        let mut scenario = self.scenario.clone();
        if let Some(address) = target.address {
            scenario.target = address;
        }
        if self.several {
            scenario.calm = scenario.calm.max(CALM + scenario.wrapup);
            eprintln!("\n{}:", target.name);
        }
        match self.goal.clone() {
            None => {
                let (report, series) = self.once(&scenario, target, None)?;
                Ok(Outcome::new(target.name.clone(), report, series))
            }
            Some(goal) => self.search(&goal, &scenario, target),
        }
    }

    /// One run.
    fn once(&mut self, scenario: &Scenario, target: &Target, goal: Option<&Goal>) -> Result<(Report, Series), Fault> {
        self.generator.set_scenario(scenario).map_err(|error| error.to_string())?;
        let mut series = Series::new(watch_process(target)?);
        if let Some(log) = &mut self.log {
            log.begin(&if self.several { format!("{}/", target.name) } else { String::new() });
        }
        let planned = scenario.rate * scenario.duration.as_secs_f64();
        let (log, log_fault, stop) = (&mut self.log, &mut self.log_fault, self.generator.stop_flag());
        let mut above: Vec<(Phase, Duration, u64)> =
            goal.iter().flat_map(|goal| &goal.bounds).map(|(phase, bound)| (*phase, *bound, 0)).collect();
        let report = self.generator.play(|interval: &Interval| {
            series.add(interval);
            if let Some(log) = log
                && let Err(error) = log.add(interval)
            {
                log_fault.get_or_insert(error);
            }
            for (phase, bound, count) in &mut above {
                let histogram = interval.histograms.of(*phase);
                *count += histogram.count_between(bound.as_micros() as u64 + 1, u64::MAX);
                if goal.is_some_and(|goal| goal.is_hopeless(*count, planned)) {
                    stop.store(true, Relaxed);
                }
            }
        });
        if !interrupted() {
            self.generator.stop_flag().store(false, Relaxed);
        }
        Ok((report, series))
    }

    /// Looks for the highest rate that the target bears.
    fn search(&mut self, goal: &Goal, scenario: &Scenario, target: &Target) -> Result<Outcome, Fault> {
        let agents = if scenario.direct { f64::INFINITY } else { scenario.agents_capacity() * AGENTS_USED };
        let bounded = Goal { highest: goal.highest.min(agents), ..goal.clone() };
        let mut search = Search::new(&bounded, scenario.rate);
        let (mut steps, mut best, mut limited_by) = (Vec::new(), None, LimitedBy::Target);
        while let Some(rate) = search.next() {
            let step_scenario = bounded.step(scenario, rate);
            let (report, series) = self.once(&step_scenario, target, Some(&bounded))?;
            if interrupted() {
                limited_by = LimitedBy::Interrupted;
                best.get_or_insert((report, series));
                break;
            }
            let mut step = bounded.judge(rate, &step_scenario, &report);
            step.target_cpu = series.target_cpu().map(|cpu| cpu.as_secs_f64() / report.seconds.max(1e-9));
            eprintln!("\n{step}");
            if !step.borne {
                limited_by = if step.generator_saturated { LimitedBy::Generator } else { LimitedBy::Target };
            }
            if step.borne || search.found() == 0.0 {
                best = Some((report, series));
            }
            search.tell(step.borne);
            steps.push(step);
        }
        let max_rate = search.found();
        if limited_by != LimitedBy::Interrupted && max_rate >= bounded.highest {
            limited_by = if agents < goal.highest { LimitedBy::Agents } else { LimitedBy::HighestRate };
        }
        let (report, series) = best.unwrap_or_default();
        let limit = Some(Limit { max_rate, limited_by, bounds_us: goal.bounds_us(), steps });
        Ok(Outcome { limit, ..Outcome::new(target.name.clone(), report, series) })
    }

    /// What the user should know before.
    fn warn(&self) {
        let buffer = self.generator.receive_buffer();
        if buffer < ENOUGH_BUFFER {
            eprintln!(
                "warning: the system grants {} KiB of receive buffer, bursts may be lost: sysctl -w net.core.rmem_max=33554432",
                buffer >> 10
            );
        }
        let (rate, capacity) = (self.scenario.rate, self.scenario.agents_capacity());
        let listed = matches!(self.scenario.arrivals, loadtest::Arrivals::Listed(_));
        if self.scenario.callers && !self.scenario.direct && self.goal.is_none() && !listed && rate > capacity {
            eprintln!(
                "warning: {} agents can serve {capacity:.1} calls/s at most, {rate} arrive: queues will grow",
                self.scenario.agent_count()
            );
        }
    }

    /// Says what to provision, and gives time for it.
    fn announce(&self, wait: Option<Duration>, targets: &[Target]) {
        let (scenario, generator) = (&self.scenario, &self.generator);
        let (agents, media) = (generator.agent_addr(), generator.media_addr());
        eprintln!("callers send from {}; agents and media servers answer at:", generator.caller_addr());
        let mut names = scenario.agent_names();
        let (first, last) = (names.next(), names.last());
        if let Some(first) = first {
            let to = last.map_or(String::new(), |last| format!(" to sip:{last}@{agents}"));
            eprintln!("  agents   sip:{first}@{agents}{to}");
        }
        eprintln!("  media    sip:music@{media} (any name plays until BYE)");
        for message in &scenario.media {
            eprintln!("           sip:{}@{media} (hangs up by itself)", message.name);
        }
        match wait {
            Some(time) => thread::sleep(time),
            None => {
                let addresses: Vec<String> = targets.iter().filter_map(|t| Some(t.address?.to_string())).collect();
                eprintln!("provision them at {}, then press Enter", addresses.join(" and "));
                // At the end of standard input there is nobody to wait for.
                let _ = std::io::stdin().read_line(&mut String::new());
            }
        }
    }
}

/// A search goes no further than to this share of what the agents can serve: beyond, callers wait for them.
const AGENTS_USED: f64 = 0.9;

fn watch_process(target: &Target) -> Result<Option<Process>, Fault> {
    let watch = |pid| Process::watch(pid).map_err(|error| format!("process {pid} of {}: {error}", target.name));
    target.pid.map(watch).transpose()
}
