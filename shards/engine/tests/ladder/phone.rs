//! A phone with one dialog at a time: builds requests and answers as RFC 3261 says, checks what it gets.

use super::{Bench, ENGINE, Got};
use std::net::SocketAddr;
use strowger_sip::msg::{Limits, Message, Name};

impl Got {
    pub fn view(&self) -> Message<'_> {
        Message::parse(&self.bytes, &Limits::default()).expect("the engine sends sound messages")
    }

    pub fn header(&self, name: Name) -> String {
        String::from_utf8_lossy(self.view().first(name).unwrap_or_default()).into_owned()
    }

    pub fn other(&self, name: &str) -> Option<String> {
        self.view().other(name).map(|v| String::from_utf8_lossy(v).into_owned())
    }

    pub fn body(&self) -> String {
        String::from_utf8_lossy(self.view().body()).into_owned()
    }

    /// Method, or code.
    pub fn what(&self) -> String {
        let view = self.view();
        match (view.method(), view.code()) {
            (Some(m), _) => String::from_utf8_lossy(m.as_bytes()).into_owned(),
            (_, Some(code)) => code.to_string(),
            _ => String::new(),
        }
    }

    pub fn uri(&self) -> String {
        let text = String::from_utf8_lossy(&self.bytes).into_owned();
        text.split(' ').nth(1).unwrap_or_default().to_owned()
    }

    /// Value of a field of the description: `c`, `m`, `o`, ...
    pub fn sdp(&self, kind: char) -> String {
        let body = self.body();
        body.lines().find_map(|l| l.strip_prefix(&format!("{kind}="))).unwrap_or_default().to_owned()
    }
}

pub struct Phone {
    pub name: String,
    pub addr: SocketAddr,
    call_id: String,
    /// Our From value with tag, the engine's side, as they go into requests.
    local: String,
    remote: String,
    target: String,
    cseq: u32,
    branch: u32,
    /// Branch of the last INVITE (for ACK to errors and CANCEL).
    invite_branch: String,
    invite_uri: String,
    invite_cseq: u32,
    dialogs: u32,
    /// Audio port of its description.
    pub port: u16,
    version: u32,
    /// Header lines that go into the next requests, and into the next answers.
    pub extra: String,
    pub answer_extra: String,
    /// Content type of bodies in requests.
    pub content_type: String,
    /// Lines at the end of the description.
    pub more_sdp: String,
    /// It describes an MSRP session, not audio.
    pub chats: bool,
    /// The URI of its Contact, where that is not its address.
    pub contact: Option<String>,
}

impl Phone {
    pub fn new(name: &str, addr: SocketAddr) -> Phone {
        Phone {
            name: name.to_owned(),
            addr,
            call_id: String::new(),
            local: String::new(),
            remote: String::new(),
            target: String::new(),
            cseq: 0,
            branch: 0,
            invite_branch: String::new(),
            invite_uri: String::new(),
            invite_cseq: 0,
            dialogs: 0,
            port: 40_000 + (addr.port() % 1000) + u16::from(addr.ip().to_string().ends_with('1')),
            version: 1,
            extra: String::new(),
            answer_extra: String::new(),
            content_type: "application/sdp".to_owned(),
            more_sdp: String::new(),
            chats: false,
            contact: None,
        }
    }

    /// This phone's description; the session name tells whose it is.
    pub fn sdp(&self) -> String {
        let (name, ip) = (&self.name, self.addr.ip());
        if self.chats {
            return format!(
                "v=0\r\no={name} 77 {version} IN IP4 {ip}\r\ns={name}\r\nc=IN IP4 {ip}\r\nt=0 0\r\nm=message {port} TCP/MSRP *\r\na=accept-types:text/plain\r\na=path:msrp://{ip}:{port}/{name};tcp\r\n{more}",
                version = self.version,
                port = self.port,
                more = self.more_sdp,
            );
        }
        format!(
            "v=0\r\no={name} 77 {} IN IP4 {ip}\r\ns={name}\r\nc=IN IP4 {ip}\r\nt=0 0\r\nm=audio {} RTP/AVP 0 8 101\r\na=rtpmap:101 telephone-event/8000\r\n{}",
            self.version, self.port, self.more_sdp
        )
    }

    fn request(
        &mut self,
        method: &str,
        uri: &str,
        to: &str,
        (cseq, branch): (u32, &str),
        extra: &str,
        body: &str,
    ) -> Vec<u8> {
        let kind = if body.is_empty() { String::new() } else { format!("Content-Type: {}\r\n", self.content_type) };
        format!(
            "{method} {uri} SIP/2.0\r\nVia: SIP/2.0/UDP {addr};branch={branch};rport\r\nMax-Forwards: 70\r\nFrom: {local}\r\nTo: {to}\r\nCall-ID: {call_id}\r\nCSeq: {cseq} {method}\r\nContact: <{contact}>\r\n{extra}{kind}Content-Length: {len}\r\n\r\n{body}",
            addr = self.addr,
            local = self.local,
            call_id = self.call_id,
            contact = self.contact(),
            len = body.len(),
        )
        .into_bytes()
    }

    fn contact(&self) -> String {
        self.contact.clone().unwrap_or_else(|| format!("sip:{}@{}", self.name, self.addr))
    }

    fn next_branch(&mut self) -> String {
        self.branch += 1;
        format!("z9hG4bK-{}-{}-{}", self.name, self.dialogs, self.branch)
    }

    /// A new call to a flow.
    pub fn invite(&mut self, bench: &mut Bench, flow: &str, body: &str) {
        self.dialogs += 1;
        let (name, n) = (&self.name, self.dialogs);
        self.call_id = format!("{name}-{n}@test");
        self.local = format!("\"{name} Caller\" <sip:{name}@example.com>;tag={name}tag{n}");
        self.remote = format!("<sip:{flow}@{ENGINE}>");
        self.target = format!("sip:{flow}@{ENGINE}");
        self.cseq = 1;
        self.invite_cseq = 1;
        self.invite_branch = self.next_branch();
        self.invite_uri = self.target.clone();
        let (uri, to, branch) = (self.target.clone(), self.remote.clone(), self.invite_branch.clone());
        let extra = self.extra.clone();
        let bytes = self.request("INVITE", &uri, &to, (1, &branch), &extra, body);
        bench.datagram(self.addr, &bytes);
    }

    /// The same INVITE once more.
    pub fn repeat_invite(&mut self, bench: &mut Bench, flow: &str, body: &str) {
        let (uri, branch) = (self.invite_uri.clone(), self.invite_branch.clone());
        let to = format!("<sip:{flow}@{ENGINE}>");
        let extra = self.extra.clone();
        let bytes = self.request("INVITE", &uri, &to, (1, &branch), &extra, body);
        bench.datagram(self.addr, &bytes);
    }

    /// The next message for this phone, which must be that method or code.
    #[track_caller]
    pub fn expect(&mut self, bench: &mut Bench, what: &str) -> Got {
        let Some(got) = bench.next_for(self.addr) else {
            panic!("{} waits for {what}, nothing came\n{}", self.name, bench.ladder());
        };
        assert_eq!(
            got.what(),
            what,
            "{} got\n{}\nladder:\n{}",
            self.name,
            String::from_utf8_lossy(&got.bytes),
            bench.ladder()
        );
        let view = got.view();
        if view.code().is_some_and(|c| c > 100)
            && view.to_tag().is_some()
            && self.call_id.as_bytes() == view.call_id().unwrap()
        {
            let mine = got.header(Name::From) == self.local;
            if mine {
                self.remote = got.header(Name::To);
                if let Some(contact) = view.contact().unwrap() {
                    self.target = String::from_utf8_lossy(contact.uri).into_owned();
                }
            }
        }
        got
    }

    /// The next message for this phone, whatever it is.
    #[track_caller]
    pub fn expect_any(&mut self, bench: &mut Bench) -> Got {
        bench.next_for(self.addr).unwrap_or_else(|| panic!("nothing came for {}\n{}", self.name, bench.ladder()))
    }

    #[track_caller]
    pub fn expect_nothing(&mut self, bench: &mut Bench) {
        if let Some(got) = bench.next_for(self.addr) {
            panic!("{} got {} unexpectedly\n{}", self.name, got.what(), bench.ladder());
        }
    }

    /// ACK of a 2xx to our (re-)INVITE.
    pub fn ack(&mut self, bench: &mut Bench, body: &str) {
        let (uri, to, branch, cseq) = (self.target.clone(), self.remote.clone(), self.next_branch(), self.invite_cseq);
        let bytes = self.request("ACK", &uri, &to, (cseq, &branch), "", body);
        bench.datagram(self.addr, &bytes);
    }

    /// ACK of an error answer to our INVITE.
    pub fn ack_error(&mut self, bench: &mut Bench) {
        let (uri, to, branch, cseq) =
            (self.invite_uri.clone(), self.remote.clone(), self.invite_branch.clone(), self.invite_cseq);
        let bytes = self.request("ACK", &uri, &to, (cseq, &branch), "", "");
        bench.datagram(self.addr, &bytes);
    }

    pub fn cancel(&mut self, bench: &mut Bench) {
        let (uri, branch, cseq) = (self.invite_uri.clone(), self.invite_branch.clone(), self.invite_cseq);
        let to = format!("<{uri}>");
        let bytes = self.request("CANCEL", &uri, &to, (cseq, &branch), "", "");
        bench.datagram(self.addr, &bytes);
    }

    /// A request in the dialog: BYE, INFO, UPDATE, re-INVITE.
    pub fn send(&mut self, bench: &mut Bench, method: &str, body: &str) {
        self.cseq += 1;
        let (uri, to, branch, cseq) = (self.target.clone(), self.remote.clone(), self.next_branch(), self.cseq);
        if method == "INVITE" {
            self.invite_branch = branch.clone();
            self.invite_uri = uri.clone();
            self.invite_cseq = cseq;
        }
        let extra = self.extra.clone();
        let bytes = self.request(method, &uri, &to, (cseq, &branch), &extra, body);
        bench.datagram(self.addr, &bytes);
    }

    /// Another description from now on: another port, a higher version.
    pub fn move_to_port(&mut self, port: u16) -> String {
        (self.port, self.version) = (port, self.version + 1);
        self.sdp()
    }

    /// A branch of a fork answers the same INVITE.
    pub fn answer_as_fork(&mut self, bench: &mut Bench, request: &Got, code: u16, body: &str) {
        let kept = (self.call_id.clone(), self.local.clone(), self.remote.clone(), self.target.clone(), self.cseq);
        self.call_id.clear();
        self.answer(bench, request, code, body);
        (self.call_id, self.local, self.remote, self.target, self.cseq) = kept;
    }

    /// The CSeq number of the next request will be this one plus one, that of the next ACK this one.
    pub fn set_cseq(&mut self, cseq: u32) {
        self.cseq = cseq;
        self.invite_cseq = cseq;
    }

    pub fn cseq(&self) -> u32 {
        self.cseq
    }

    /// Goes on as if the other side's tag were this one.
    pub fn forge_remote_tag(&mut self, tag: &str) {
        let at = self.remote.rfind(";tag=").expect("a dialog");
        self.remote = format!("{};tag={tag}", &self.remote[..at]);
    }

    /// Answers a request of the engine's; a dialog-forming one makes it ours.
    pub fn answer(&mut self, bench: &mut Bench, request: &Got, code: u16, body: &str) {
        let view = request.view();
        let call_id = String::from_utf8_lossy(view.call_id().unwrap()).into_owned();
        let mut to = request.header(Name::To);
        if view.to_tag().is_none() && code > 100 {
            if call_id != self.call_id {
                self.dialogs += 1;
                self.call_id = call_id.clone();
                self.cseq = 100;
            }
            to = format!("{to};tag={}tag{}", self.name, self.dialogs);
            self.local = to.clone();
            self.remote = request.header(Name::From);
            self.target =
                view.contact().unwrap().map(|c| String::from_utf8_lossy(c.uri).into_owned()).unwrap_or_default();
        }
        let vias: String = view.all(Name::Via).map(|v| format!("Via: {}\r\n", String::from_utf8_lossy(v))).collect();
        let kind = if body.is_empty() { "" } else { "Content-Type: application/sdp\r\n" };
        let bytes = format!(
            "SIP/2.0 {code} X\r\n{vias}From: {from}\r\nTo: {to}\r\nCall-ID: {call_id}\r\nCSeq: {cseq}\r\nContact: <{contact}>\r\nAllow: INVITE, ACK, BYE, CANCEL, OPTIONS, UPDATE, INFO\r\n{extra}{kind}Content-Length: {len}\r\n\r\n{body}",
            from = request.header(Name::From),
            cseq = request.header(Name::CSeq),
            extra = self.answer_extra,
            contact = self.contact(),
            len = body.len(),
        );
        bench.datagram(self.addr, bytes.as_bytes());
    }
}
