//! What the peers decide: when callers leave, how agents answer, what media servers do against their contract.

use crate::plan::{AgentOdds, CallerOdds, MediaOdds, SECOND};
use crate::rules::Body;
use crate::text;
use crate::ua::{Act, Ctx, Dialog, Kind, LIFE, Phase, Tick};
use strowger_sip::msg::Message;

/// How long a phone rings.
const RINGS_US: u64 = 180 * SECOND;

impl Ctx<'_> {
    fn caller(&self) -> CallerOdds {
        if self.calm { CallerOdds::default() } else { self.plan.caller.clone() }
    }
    fn agent(&self) -> AgentOdds {
        if self.calm { AgentOdds::default() } else { self.plan.agent.clone() }
    }
    fn media(&self) -> MediaOdds {
        if self.calm { MediaOdds::default() } else { self.plan.media.clone() }
    }
    /// Up to `us`.
    fn within(&mut self, us: u64) -> u64 {
        self.rng.range(1, us.max(1))
    }
}

impl Dialog {
    fn later(&self, ctx: &mut Ctx<'_>, us: u64, act: Act) {
        ctx.timers.push((us, self.index, Tick::Act(act)));
    }

    pub fn wake(&mut self, ctx: &mut Ctx<'_>, tick: Tick) {
        if self.dead {
            return;
        }
        match tick {
            Tick::Retry(id) => self.retry(ctx, id),
            Tick::Again(n) => self.again(ctx, n),
            Tick::Act(act) => self.act(ctx, act),
        }
    }

    fn act(&mut self, ctx: &mut Ctx<'_>, act: Act) {
        match act {
            Act::Dial => self.dial(ctx),
            Act::Ring(n) if self.phase == Phase::Ringing => self.reply(ctx, n, 180, "", ""),
            Act::Answer(n) => self.answer(ctx, n),
            Act::Refuse(n, code) if self.phase != Phase::Over => self.refuse(ctx, n, code),
            Act::Fork(n) => self.fork(ctx, n),
            Act::Patience => self.lose_patience(ctx),
            Act::Leave if self.phase == Phase::Up => {
                self.leave(ctx);
            }
            Act::Die if !ctx.calm => {
                ctx.saw("peer went silent");
                self.dead = true;
            }
            Act::Reboot if !ctx.calm && self.phase != Phase::Over => {
                ctx.saw("peer rebooted");
                self.phase = Phase::Over;
                self.facts.unfaithful = true;
                self.clients.iter_mut().filter(|c| c.code == 0).for_each(|c| c.code = 408);
                self.servers.iter_mut().for_each(|s| s.acked = true);
            }
            Act::Stray if self.phase == Phase::Up => self.send_stray(ctx),
            Act::Info if self.phase == Phase::Up => self.send(ctx, "INFO", "", ""),
            Act::ReInvite | Act::ReInviteBare | Act::Update | Act::UpdateBare if self.may_offer() => {
                self.meddle(ctx, act);
            }
            Act::Refresh if self.phase == Phase::Up => {
                if self.may_offer() {
                    let extra = "Supported: timer\r\nSession-Expires: 120;refresher=uac\r\n";
                    self.send(ctx, "UPDATE", extra, "");
                }
                self.later(ctx, 20 * SECOND, Act::Refresh);
            }
            _ => {}
        }
    }

    fn dial(&mut self, ctx: &mut Ctx<'_>) {
        let odds = ctx.caller();
        self.with_sdp = !ctx.rng.chance(odds.no_sdp);
        self.chat = self.with_sdp && ctx.rng.chance(ctx.plan.chats);
        if self.asks.body != Body::Good {
            (self.with_sdp, self.chat) = (true, false);
        }
        self.never_acks = ctx.rng.chance(odds.no_ack);
        self.timer = ctx.rng.chance(odds.timer);
        self.updates = ctx.rng.chance(700);
        let mut extra = "X-Sim: yes\r\n".to_owned();
        if self.updates {
            extra.push_str("Allow: INVITE, ACK, CANCEL, BYE, UPDATE, INFO\r\n");
        }
        if self.timer {
            extra.push_str("Supported: timer\r\nSession-Expires: 120\r\n");
        }
        extra.push_str(&self.asks.lines());
        if self.asks.message {
            self.send(ctx, "MESSAGE", &extra, "");
            return;
        }
        let body = if self.with_sdp { self.describe() } else { String::new() };
        if self.chat {
            ctx.saw("INVITE for a chat");
        }
        ctx.saw(if self.with_sdp { "INVITE with offer" } else { "INVITE without offer" });
        self.send(ctx, "INVITE", &extra, &body);
        let patience = if ctx.rng.chance(odds.impatient) { 3 * SECOND } else { ctx.plan.patience_us };
        let patience = ctx.within(patience);
        self.later(ctx, patience, Act::Patience);
        if ctx.rng.chance(odds.silent) {
            let at = ctx.within(30 * SECOND);
            self.later(ctx, at, Act::Die);
        }
    }

    /// A caller who is not with an agent leaves; one who talks is asked again later.
    fn lose_patience(&mut self, ctx: &mut Ctx<'_>) {
        let odds = ctx.caller();
        match self.phase {
            Phase::Over => return,
            Phase::Up if self.with_agent() => {}
            Phase::Calling if self.remote.contains(";tag=") && ctx.rng.chance(odds.early_bye) => {
                ctx.saw("BYE on an early dialog");
                self.leaving = true;
                self.facts.said_bye.get_or_insert(ctx.now);
                self.send(ctx, "BYE", "", "");
                ctx.timers.push((LIFE, self.index, Tick::Retry(0)));
            }
            _ if !self.leaving => self.leave(ctx),
            _ => {}
        }
        self.later(ctx, 5 * SECOND, Act::Patience);
    }

    /// The other end of our session is an agent's phone.
    pub fn with_agent(&self) -> bool {
        self.remote_media.starts_with("10.1.")
    }

    /// The dialog has come up: the caller's first 2xx is here, or the agent has answered.
    pub fn on_up(&mut self, ctx: &mut Ctx<'_>) {
        let (hands, silent, reboot) = match self.kind {
            Kind::Caller => (ctx.caller().busy_hands, 0, ctx.caller().reboot),
            Kind::Agent => (ctx.agent().busy_hands, ctx.agent().silent, ctx.agent().reboot),
            _ => (0, 0, ctx.media().reboot),
        };
        if ctx.rng.chance(reboot) {
            let at = ctx.within(20 * SECOND);
            self.later(ctx, at, Act::Reboot);
        }
        if ctx.rng.chance(silent) {
            let at = ctx.within(20 * SECOND);
            self.later(ctx, at, Act::Die);
        }
        let stray = ctx.plan.hazards.stray;
        if stray > 0 && !ctx.calm && ctx.rng.chance(stray) {
            let at = ctx.within(15 * SECOND);
            self.later(ctx, at, Act::Stray);
        }
        if !ctx.rng.chance(hands) {
            return;
        }
        for _ in 0..ctx.rng.range(1, 4) {
            let at = ctx.within(15 * SECOND);
            let bare = if self.kind == Kind::Caller { Act::ReInviteBare } else { Act::ReInvite };
            let act = *ctx.rng.pick(&[Act::ReInvite, Act::ReInvite, bare, Act::Update, Act::UpdateBare, Act::Info]);
            self.later(ctx, at, act);
        }
    }

    /// Their description has come or changed.
    pub fn on_media(&mut self, ctx: &mut Ctx<'_>) {
        if self.kind == Kind::Caller && self.with_agent() && self.facts.met_agent.is_none() {
            self.facts.met_agent = Some(ctx.now);
            let talk = ctx.within(if ctx.calm { 5 * SECOND } else { ctx.plan.talk_us });
            self.later(ctx, talk, Act::Leave);
        }
    }

    /// Hold, move, ask for an offer, refresh.
    fn meddle(&mut self, ctx: &mut Ctx<'_>, act: Act) {
        let moves = match self.kind {
            Kind::Caller => ctx.caller().moves,
            _ => ctx.agent().moves,
        };
        let changes = matches!(act, Act::ReInvite | Act::Update);
        if changes {
            self.before = (self.port, self.held);
            if ctx.rng.chance(moves) {
                self.port = 20_000 + (self.port + 2) % 20_000;
            } else {
                self.held = !self.held;
            }
            self.version += 1;
        }
        if !changes {
            self.before = (0, false);
        }
        let body = if changes { self.describe() } else { String::new() };
        match act {
            Act::ReInvite | Act::ReInviteBare => {
                ctx.saw(if changes { "peer's re-INVITE" } else { "peer's re-INVITE without offer" });
                self.send(ctx, "INVITE", "", &body);
            }
            _ => {
                ctx.saw(if changes { "peer's UPDATE with offer" } else { "peer's UPDATE" });
                self.send(ctx, "UPDATE", "", &body);
            }
        }
    }

    /// The first INVITE of a dialog has reached this agent or server.
    pub fn on_called(&mut self, ctx: &mut Ctx<'_>, n: usize) {
        match self.kind {
            Kind::Agent => self.on_offered_call(ctx, n),
            _ => self.on_media_call(ctx, n),
        }
    }

    fn on_offered_call(&mut self, ctx: &mut Ctx<'_>, n: usize) {
        let odds = ctx.agent();
        self.updates = !ctx.rng.chance(odds.no_update);
        if ctx.rng.chance(odds.deaf) {
            ctx.saw("agent's phone is dead");
            self.dead = true;
            return;
        }
        if ctx.rng.chance(odds.refuse) {
            let code = *ctx.rng.pick(&[486, 404, 603, 480, 302, 503]);
            let at = if ctx.rng.chance(500) { 1 } else { ctx.within(2 * SECOND) };
            self.later(ctx, at, Act::Refuse(n, code));
            return;
        }
        let ring = ctx.within(SECOND / 5);
        self.later(ctx, ring, Act::Ring(n));
        // A phone that nobody answers, and whose CANCEL was lost, does not ring for ever.
        self.later(ctx, RINGS_US, Act::Refuse(n, 480));
        if !ctx.rng.chance(odds.no_answer) {
            let answer = ctx.within(if ctx.calm { SECOND } else { 5 * SECOND });
            self.later(ctx, ring + answer, Act::Answer(n));
            if ctx.rng.chance(odds.fork) {
                let at = ring + answer + ctx.within(2 * SECOND);
                self.later(ctx, at, Act::Fork(n));
            }
        }
    }

    fn on_media_call(&mut self, ctx: &mut Ctx<'_>, n: usize) {
        let odds = ctx.media();
        if ctx.rng.chance(odds.deaf) {
            self.dead = true;
        } else if ctx.rng.chance(odds.refuse) {
            let code = *ctx.rng.pick(&[503, 404, 500]);
            self.later(ctx, 1, Act::Refuse(n, code));
        } else {
            let slow = ctx.rng.chance(odds.slow);
            let at = ctx.within(if slow { 4 * SECOND } else { SECOND / 50 });
            self.later(ctx, at, Act::Answer(n));
        }
    }

    fn answer(&mut self, ctx: &mut Ctx<'_>, n: usize) {
        if self.servers[n].code >= 200 || self.phase == Phase::Over {
            return;
        }
        let first = self.phase == Phase::Ringing;
        self.accept(ctx, n);
        if !first {
            return;
        }
        self.phase = Phase::Up;
        self.facts.said_2xx = Some(ctx.now);
        match self.kind {
            Kind::Agent => {
                let brief = ctx.agent().brief;
                let talk = if ctx.rng.chance(brief) { SECOND } else { 2 * ctx.plan.talk_us };
                let talk = ctx.within(talk);
                self.later(ctx, talk, Act::Leave);
            }
            Kind::Welcome | Kind::Dissuading | Kind::Briefing => {
                let odds = ctx.media();
                let late = ctx.rng.chance(odds.late);
                let at = ctx.within(if late { 30 * SECOND } else { 4 * SECOND });
                if !ctx.rng.chance(odds.endless) {
                    self.later(ctx, at, Act::Leave);
                }
            }
            _ => {
                let hangup = ctx.media().hangup;
                if ctx.rng.chance(hangup) {
                    ctx.saw("music hung up");
                    let at = ctx.within(8 * SECOND);
                    self.later(ctx, at, Act::Leave);
                }
            }
        }
        self.on_up(ctx);
    }

    fn refuse(&mut self, ctx: &mut Ctx<'_>, n: usize, code: u16) {
        if self.servers[n].code >= 200 {
            return;
        }
        if self.phase == Phase::Ringing {
            self.facts.said_no = Some(code);
            self.phase = Phase::Over;
        }
        self.reply(ctx, n, code, "", "");
        if self.phase == Phase::Up && matches!(code, 408 | 481) {
            self.phase = Phase::Over;
            self.facts.unfaithful = true;
        }
    }

    /// Another branch of a fork answers too. The engine must acknowledge and end it: nothing else answers for it here.
    fn fork(&mut self, ctx: &mut Ctx<'_>, n: usize) {
        if self.phase != Phase::Up || self.servers[n].acked || self.servers[n].code != 200 {
            return;
        }
        ctx.saw("second 200 of a fork");
        self.fork_answer(ctx, n);
    }

    /// CANCEL of an INVITE that is not answered: mostly 487; sometimes the user has just picked up.
    pub fn on_cancelled(&mut self, ctx: &mut Ctx<'_>, n: usize) {
        let cross = ctx.agent().cross_cancel;
        if self.kind == Kind::Agent && n == 0 && ctx.rng.chance(cross) {
            ctx.saw("agent answered over the CANCEL");
            self.answer(ctx, n);
            return;
        }
        if n == 0 {
            self.phase = Phase::Over;
        }
        self.reply(ctx, n, 487, "", "");
    }

    pub fn on_reinvite(&mut self, ctx: &mut Ctx<'_>, n: usize, msg: &Message<'_>) {
        if self.has_offered() {
            ctx.saw("491 to a re-INVITE that crossed");
            self.reply(ctx, n, 491, "", "");
            return;
        }
        if self.servers[..n].iter().any(|s| s.method == "INVITE" && s.code < 200) {
            self.reply(ctx, n, 500, "Retry-After: 1\r\n", "");
            return;
        }
        let (refuse, slow) = match self.kind {
            Kind::Caller => (ctx.caller().refuse_reinvite, ctx.caller().slow_reinvite),
            Kind::Agent => (ctx.agent().refuse_reinvite, ctx.agent().slow_reinvite),
            _ => (0, 0),
        };
        let at = if ctx.rng.chance(slow) { ctx.within(3 * SECOND) } else { 1 };
        if ctx.rng.chance(refuse) {
            let code = *ctx.rng.pick(&[491, 491, 488, 488, 500, 481, 408]);
            ctx.saw(match code {
                491 => "491 to a re-INVITE",
                488 => "488 to a re-INVITE",
                _ => "re-INVITE refused otherwise",
            });
            self.later(ctx, at, Act::Refuse(n, code));
            return;
        }
        if ctx.rng.chance(slow) {
            self.reply(ctx, n, 100, "", "");
        }
        self.note_media(ctx, msg);
        self.later(ctx, at, Act::Answer(n));
    }

    pub fn on_update(&mut self, ctx: &mut Ctx<'_>, n: usize, msg: &Message<'_>) {
        if msg.body().is_empty() {
            self.reply(ctx, n, 200, "", "");
            return;
        }
        if self.has_offered() {
            self.reply(ctx, n, 491, "", "");
            return;
        }
        let refuse = ctx.agent().refuse_reinvite;
        if ctx.rng.chance(refuse) {
            self.reply(ctx, n, 488, "", "");
            return;
        }
        self.note_media(ctx, msg);
        self.accept(ctx, n);
    }

    /// Our re-INVITE or UPDATE was refused.
    pub fn on_refused(&mut self, ctx: &mut Ctx<'_>, code: u16) {
        if code == 491 {
            ctx.saw("engine said 491");
        }
        if self.before.0 > 0 {
            // The session stands as it was (RFC 3261 section 14.1).
            (self.port, self.held) = self.before;
            self.version += 1;
        }
        if matches!(code, 408 | 481) && self.phase == Phase::Up {
            self.bye(ctx);
        }
    }

    /// A description for a log line.
    #[must_use]
    pub fn name(&self) -> String {
        match self.kind {
            Kind::Caller => format!("c{}", self.call),
            Kind::Agent => format!("a{}", text::agent_of(self.addr).unwrap_or(0)),
            Kind::Music => "music".to_owned(),
            Kind::Welcome => "welcome".to_owned(),
            Kind::Dissuading => "dissuading".to_owned(),
            Kind::Briefing => "briefing".to_owned(),
        }
    }
}
