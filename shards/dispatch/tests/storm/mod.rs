//! Shards and a control plane that do everything at random, and the books that are kept beside: who owns which agent, and, at rest,
//! whether anything was lost, booked twice or leaked. Used by `shuttle.rs` (schedules at random) and `stress.rs` (real threads).

use std::sync::{
    Arc,
    atomic::{AtomicU32, Ordering::SeqCst},
};

use strowger_dispatch::*;

const SKILLS: u32 = 3;
/// In a book: the audio slot; chats count below it.
const AUDIO: u32 = 1 << 16;

/// xorshift64 (Marsaglia 2003)
pub struct Rng(u64);

impl Rng {
    pub fn new(seed: u64) -> Self {
        Self((seed + 1).wrapping_mul(0x9E37_79B9_7F4A_7C15))
    }
    fn below(&mut self, n: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        ((self.0 >> 11) % n as u64) as usize
    }
}

#[derive(Clone, Debug)]
pub struct Agent {
    agent: AgentRef,
    skills: Vec<SkillId>,
    audio: bool,
}

/// What all workers share.
pub struct Storm {
    pub dispatch: Arc<Dispatch>,
    /// Owners of each agent slot.
    books: Vec<AtomicU32>,
    /// The first agents; shards log these in and out, stale ones too.
    first: Vec<Agent>,
}

/// What a worker comes home with.
pub enum Worker {
    Shard { handle: Handle, waits: Vec<(WaitRef, SkillId, Media)>, claims: Vec<(AgentRef, Media)> },
    Control { handle: Handle, agents: Vec<Agent> },
}

fn draw_spec(rng: &mut Rng) -> (Vec<SkillId>, bool, u8) {
    let skills = (0..SKILLS).map(SkillId).filter(|_| rng.below(2) == 0).collect();
    (skills, rng.below(4) > 0, rng.below(3) as u8)
}

impl Storm {
    pub fn new(shards: u16, agents: u32, seed: u64, policy: ChatPolicy) -> Self {
        let limits = Limits { shards, agents: agents * 2, waiting_per_shard: 64, skills: SKILLS };
        let dispatch = Arc::new(Dispatch::new(limits, policy));
        let books = (0..agents * 2).map(|_| AtomicU32::new(0)).collect();
        let (mut handle, mut rng, mut out) = (dispatch.handle(shards), Rng::new(seed), Vec::new());
        let mut first = Vec::new();
        for _ in 0..agents {
            let agent = add(&mut handle, &mut rng).unwrap();
            handle.login(agent.agent, &mut out);
            first.push(agent);
        }
        drop(handle);
        Self { dispatch, books, first }
    }

    /// A shard: calls arrive, leave, are taken; agents are released.
    pub fn shard(&self, shard: u16, turns: usize, seed: u64) -> Worker {
        let mut handle = self.dispatch.handle(shard);
        let (mut rng, mut out) = (Rng::new(seed), Vec::new());
        let mut waits: Vec<(WaitRef, SkillId, Media)> = Vec::new();
        let mut claims: Vec<(AgentRef, Media)> = Vec::new();
        for _ in 0..turns {
            match rng.below(8) {
                0..=2 => waits.extend(self.arrive(&mut handle, &mut rng, &mut out)),
                3 if !waits.is_empty() => {
                    let (wait, _, media) = waits.swap_remove(rng.below(waits.len()));
                    if let Abandon::Taken(agent) = handle.abandon(wait) {
                        self.book(agent, media);
                        self.release(&mut handle, (agent, media), Release::GiveBack, &mut out);
                    }
                }
                4..=5 if !claims.is_empty() => {
                    let claim = claims.swap_remove(rng.below(claims.len()));
                    let how = match (claim.1, rng.below(3)) {
                        (_, 0) => Release::GiveBack,
                        (Media::Audio, 1) => Release::Free,
                        (Media::Audio, _) => Release::Wrapup,
                        (Media::Chat, 1) => Release::Chat,
                        (Media::Chat, _) => Release::ChatWrapup,
                    };
                    self.release(&mut handle, claim, how, &mut out);
                }
                6 => {
                    let agent = self.first[rng.below(self.first.len())].agent;
                    handle.wrapup_over(agent, &mut out);
                }
                _ => {
                    let agent = self.first[rng.below(self.first.len())].agent;
                    if rng.below(3) == 0 {
                        handle.logout(agent)
                    } else {
                        handle.login(agent, &mut out)
                    };
                }
            }
            self.take(&mut handle, &mut waits, &mut claims);
            if rng.below(32) == 0 {
                handle.collect();
            }
        }
        handle.take_late(&mut out);
        Worker::Shard { handle, waits, claims }
    }

    /// The control plane: reloads, logins, dispatching switched off and on.
    pub fn control(&self, shards: u16, turns: usize, seed: u64) -> Worker {
        let mut handle = self.dispatch.handle(shards);
        let (mut rng, mut out, mut agents) = (Rng::new(seed), Vec::new(), self.first.clone());
        for _ in 0..turns {
            let which = rng.below(agents.len());
            let agent = agents[which].agent;
            match rng.below(7) {
                0 => _ = handle.logout(agent),
                1 => _ = handle.login(agent, &mut out),
                2 => _ = handle.begin_wrapup(agent),
                3 => _ = handle.wrapup_over(agent, &mut out),
                4 => {
                    let (skills, audio, chat_slots) = draw_spec(&mut rng);
                    let spec = AgentSpec { skills: &skills, audio, chat_slots };
                    assert!(handle.update_agent(agent, spec, &mut out));
                    agents[which] = Agent { agent, skills, audio };
                }
                5 => {
                    // Retired agents in calls fill the table now and then.
                    if let Ok(next) = add(&mut handle, &mut rng) {
                        agents[which] = next;
                        handle.retire_agent(agent);
                    }
                }
                _ => {
                    self.dispatch.set_dispatching(false);
                    self.dispatch.set_dispatching(true);
                    handle.match_all(&mut out);
                }
            }
        }
        Worker::Control { handle, agents }
    }

    fn arrive(&self, handle: &mut Handle, rng: &mut Rng, out: &mut Vec<Match>) -> Option<(WaitRef, SkillId, Media)> {
        let skill = SkillId(rng.below(SKILLS as usize) as u32);
        let media = if rng.below(3) == 0 { Media::Chat } else { Media::Audio };
        let refused = [self.first[rng.below(self.first.len())].agent];
        let refused = &refused[..rng.below(2)];
        let ticket = self.dispatch.next_ticket();
        let spec = WaitSpec { media, skill, priority: rng.below(2) as u32, ticket, refused };
        handle.wait(spec, out).ok().map(|wait| (wait, skill, media))
    }

    fn take(
        &self,
        handle: &mut Handle,
        waits: &mut Vec<(WaitRef, SkillId, Media)>,
        claims: &mut Vec<(AgentRef, Media)>,
    ) {
        waits.retain(|&(wait, _, media)| {
            let taken = handle.take(wait);
            if let Some(agent) = taken {
                self.book(agent, media);
                claims.push((agent, media));
            }
            taken.is_none()
        });
    }

    fn book(&self, agent: AgentRef, media: Media) {
        let book = &self.books[agent.slot as usize];
        match media {
            Media::Audio => assert_eq!(book.fetch_add(AUDIO, SeqCst), 0, "{agent:?} is booked twice"),
            Media::Chat => assert!(book.fetch_add(1, SeqCst) < 2, "{agent:?} has a call, or more chats than slots"),
        }
    }

    fn release(&self, handle: &mut Handle, claim: (AgentRef, Media), how: Release, out: &mut Vec<Match>) {
        let (agent, media) = claim;
        let units = if media == Media::Audio { AUDIO } else { 1 };
        self.books[agent.slot as usize].fetch_sub(units, SeqCst);
        assert_ne!(handle.release(agent, how, out), Released::Stale, "a claim ends in one release");
    }

    /// At rest: nothing lost, the counts equal a recount; then everything ends, and nothing is left.
    pub fn check(&self, workers: Vec<Worker>) {
        let (mut shards, mut waits, mut claims, mut control, mut agents) = (vec![], vec![], vec![], None, vec![]);
        for worker in workers {
            match worker {
                Worker::Shard { handle, waits: w, claims: c } => {
                    waits.extend(w.into_iter().map(|w| (shards.len(), w)));
                    claims.extend(c);
                    shards.push(handle);
                }
                Worker::Control { handle, agents: a } => (control, agents) = (Some(handle), a),
            }
        }
        let mut control = control.expect("a storm has a control plane");
        self.nothing_is_lost(&mut control, &agents, &waits);
        let mut out = Vec::new();
        for Agent { agent, .. } in &agents {
            control.wrapup_over(*agent, &mut out);
        }
        self.nothing_is_lost(&mut control, &agents, &waits);
        self.counts_are_exact(&mut control, &agents, &waits);
        for (shard, (wait, _, media)) in waits {
            if let Abandon::Taken(agent) = shards[shard].abandon(wait) {
                self.book(agent, media);
                claims.push((agent, media));
            }
        }
        for claim in claims {
            self.release(&mut control, claim, Release::Free, &mut out);
        }
        assert!(self.books.iter().all(|book| book.load(SeqCst) == 0));
        for Agent { agent, .. } in agents {
            let state = self.dispatch.agent(agent).unwrap().state;
            assert!(matches!(state, AgentState::Free | AgentState::Offline | AgentState::Wrapup), "{state:?}");
            control.retire_agent(agent);
            assert_eq!(self.dispatch.agent(agent), None);
        }
        assert_eq!((self.dispatch.logged_in_total(), self.dispatch.free_total()), (0, 0));
        for handle in shards.iter_mut().chain([&mut control]) {
            handle.collect();
        }
        assert_eq!(self.dispatch.garbage(), 0);
    }

    fn nothing_is_lost(&self, control: &mut Handle, agents: &[Agent], waits: &[(usize, (WaitRef, SkillId, Media))]) {
        for Agent { agent, audio, skills } in agents {
            let view = self.dispatch.agent(*agent).unwrap();
            assert_eq!(control.skills_of(*agent), *skills);
            let free = view.state == AgentState::Free;
            // A chat slot may be withheld by a wrap-up that the view does not show; the second check comes after all wrap-ups.
            let withheld = view.state == AgentState::InChat && view.chats_open + 1 == view.chat_slots;
            for (_, (wait, skill, media)) in waits {
                let takes = match media {
                    Media::Audio => free && *audio,
                    Media::Chat if free => view.chat_slots > 0,
                    Media::Chat => {
                        view.state == AgentState::InChat
                            && view.logged_in
                            && view.chats_open < view.chat_slots
                            && !withheld
                    }
                };
                let lost = takes && skills.contains(skill) && control.is_waiting(*wait);
                assert!(!lost, "{wait:?} ({media:?}) waits while {agent:?} is available: {view:?}");
            }
        }
    }

    fn counts_are_exact(&self, control: &mut Handle, agents: &[Agent], waits: &[(usize, (WaitRef, SkillId, Media))]) {
        for skill in (0..SKILLS).map(SkillId) {
            let views =
                agents.iter().filter(|a| a.skills.contains(&skill)).map(|a| self.dispatch.agent(a.agent).unwrap());
            let (logged_in, free) = views.fold((0, 0), |(logged_in, free), v| {
                (logged_in + u32::from(v.logged_in), free + u32::from(v.state == AgentState::Free))
            });
            let waiting = waits.iter().filter(|(_, (w, s, _))| *s == skill && control.is_waiting(*w)).count();
            assert_eq!((self.dispatch.logged_in(skill), self.dispatch.free(skill)), (logged_in, free));
            assert_eq!(self.dispatch.queue_len(skill) as usize, waiting);
        }
    }
}

fn add(handle: &mut Handle, rng: &mut Rng) -> Result<Agent, Full> {
    let (skills, audio, chat_slots) = draw_spec(rng);
    let agent = handle.add_agent(AgentSpec { skills: &skills, audio, chat_slots })?;
    Ok(Agent { agent, skills, audio })
}
