//! The management interface over FIFO and datagrams, by hand and with clients that behave badly.

mod support;

use serde_json::{Value, json};
use std::fs::{File, OpenOptions};
use std::io::{BufRead, BufReader, Write};
use std::net::UdpSocket;
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::os::unix::net::UnixDatagram;
use std::path::PathBuf;
use std::process::Command;
use std::sync::mpsc;
use std::time::Duration;
use support::{Scene, Server, code, stderr};

const PATIENCE: Duration = Duration::from_secs(30);

fn start(scene: &Scene) -> Server {
    let fifo = format!("mi.fifo={}", scene.path("mi.fifo").display());
    let replies = format!("mi.fifo_reply_dir={}", scene.path("").display());
    let datagrams = format!("mi.datagram=[\"udp:127.0.0.1:0\", \"unix:{}\"]", scene.path("mi.sock").display());
    Server::start(
        scene,
        &["--set", &fifo, "--set", &replies, "--set", &datagrams, "--set", "mi.max_request_size=65536"],
    )
}

/// A request FIFO and its clients.
struct Fifo<'a>(&'a Scene);

impl Fifo<'_> {
    /// As the field's clients write: no line end, then the file is closed.
    fn write(&self, text: &str) {
        let mut fifo = OpenOptions::new().write(true).open(self.0.path("mi.fifo")).unwrap();
        fifo.write_all(text.as_bytes()).unwrap();
    }

    fn make(&self, name: &str) -> PathBuf {
        let path = self.0.path(name);
        assert!(Command::new("mkfifo").arg(&path).status().unwrap().success());
        path
    }

    /// The one line that comes on the reply FIFO of this name.
    fn ask(&self, name: &str, body: &str) -> Value {
        let path = self.make(name);
        self.write(&format!(":{name}:{body}"));
        let line = read_line(path);
        assert!(line.ends_with('\n') && line.matches('\n').count() == 1, "{line:?}");
        serde_json::from_str(&line).unwrap()
    }
}

/// Opens a FIFO as a reader would, on a thread: a server that never opens it must fail the test, not hang it.
fn read_line(path: PathBuf) -> String {
    let (send, receive) = mpsc::channel();
    std::thread::spawn(move || {
        let mut line = String::new();
        BufReader::new(File::open(path).unwrap()).read_line(&mut line).unwrap();
        let _ = send.send(line);
    });
    receive.recv_timeout(PATIENCE).expect("an answer on the reply FIFO")
}

fn version(id: u32) -> String {
    json!({"jsonrpc": "2.0", "id": id, "method": "version"}).to_string()
}

fn is_version(answer: &Value, id: u32) -> bool {
    answer["id"] == id && answer["result"]["Server"].as_str().is_some_and(|s| s.starts_with("Strowger ("))
}

#[test]
fn the_fifo_answers_on_reply_fifos() {
    let scene = Scene::new();
    let server = start(&scene);
    let fifo = Fifo(&scene);
    assert_eq!(server.ready["mi_fifo"], scene.path("mi.fifo").to_str().unwrap());
    assert_eq!(scene.path("mi.fifo").metadata().unwrap().permissions().mode() & 0o777, 0o660);
    assert!(is_version(&fifo.ask("r1", &version(1)), 1));
    let batch = format!("[{},{}]\n", version(1), json!({"jsonrpc": "2.0", "id": 2, "method": "nope"}));
    let answer = fifo.ask("r2", &batch);
    assert!(is_version(&answer[0], 1) && answer[1]["error"]["code"] == -32601, "{answer}");
    assert_eq!(fifo.ask("r3", "{not json}")["error"]["code"], -32700);
    assert_eq!(fifo.ask("r4", "[]")["error"]["code"], -32600);
    let long = fifo.ask("r5", &format!("[{}1]", "1,".repeat(50_000)));
    assert_eq!(long["error"]["message"], "Request longer than 65536 bytes; raise [mi] max_request_size");
    assert!(is_version(&fifo.ask("r6", &version(6)), 6));
    let (code, log) = server.terminate();
    assert_eq!(code, Some(0), "{log}");
    assert!(!scene.path("mi.fifo").exists() && !scene.path("mi.sock").exists());
}

#[test]
fn clients_of_the_fifo_that_behave_badly_hold_up_nobody() {
    let scene = Scene::new();
    let server = start(&scene);
    let fifo = Fifo(&scene);
    // Readers that never open, more than are waited for at once.
    for n in 0..100 {
        fifo.make(&format!("never{n}"));
        fifo.write(&format!(":never{n}:{}", version(n)));
    }
    // Nobody made the reply FIFO; no answer is wanted; a writer that dies in the middle.
    fifo.write(&format!(":missing:{}", version(1)));
    fifo.write(&format!("::{}", version(1)));
    fifo.write(&format!(":r0:{}", json!({"jsonrpc": "2.0", "method": "version"})));
    fifo.write(":torn:{\"jsonrpc\":");
    // A reader that opens and does not read more than a pipe holds.
    fifo.make("stalls");
    let stalls = OpenOptions::new().read(true).custom_flags(libc::O_NONBLOCK).open(scene.path("stalls")).unwrap();
    fifo.write(&format!(":stalls:[{}]", vec![version(3); 1000].join(",")));
    assert!(is_version(&fifo.ask("r1", &version(2)), 2));
    drop(stalls);
    // Outside of the directory nothing is touched.
    let outside = scene.path("data/outside");
    assert!(Command::new("mkfifo").arg(&outside).status().unwrap().success());
    let _reader = OpenOptions::new().read(true).custom_flags(libc::O_NONBLOCK).open(&outside).unwrap();
    fifo.write(&format!(":data/outside:{}", version(3)));
    fifo.write(&format!(":{}:{}", outside.display(), version(4)));
    assert!(is_version(&fifo.ask("r2", &version(5)), 5));
    let (code, log) = server.terminate();
    assert_eq!(code, Some(0), "{log}");
    let refused = log.lines().filter(|l| l.contains("not the plain name of a file")).count();
    assert_eq!(refused, 2, "{log}");
}

#[test]
fn datagrams_are_answered_over_udp_and_unix() {
    let scene = Scene::new();
    scene.out(&["db", "init"]);
    scene.sql(
        "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 3000) \
         INSERT INTO cc_agents (agentid, location, skills) SELECT 'agent-' || i, 'sip:a@127.0.0.1:9', 'en' FROM n",
    );
    let server = start(&scene);
    let udp = UdpSocket::bind("127.0.0.1:0").unwrap();
    udp.connect(server.ready["mi_datagram"][0].as_str().unwrap().strip_prefix("udp:").unwrap()).unwrap();
    udp.set_read_timeout(Some(PATIENCE)).unwrap();
    let unix = UnixDatagram::bind(scene.path("client.sock")).unwrap();
    unix.connect(scene.path("mi.sock")).unwrap();
    unix.set_read_timeout(Some(PATIENCE)).unwrap();
    assert_eq!(scene.path("mi.sock").metadata().unwrap().permissions().mode() & 0o777, 0o660);
    // Without an address of its own a client cannot be answered; nothing else happens.
    let nameless = UnixDatagram::unbound().unwrap();
    nameless.send_to(version(1).as_bytes(), scene.path("mi.sock")).unwrap();
    let ask = |body: &str| -> [Value; 2] {
        [&udp as &dyn Puts, &unix].map(|socket| {
            socket.put(body);
            serde_json::from_slice(&socket.take()).unwrap()
        })
    };
    // A notification is not answered: the next answer is the next request's.
    for socket in [&udp as &dyn Puts, &unix] {
        socket.put(&json!({"jsonrpc": "2.0", "method": "version"}).to_string());
    }
    for answer in ask(&version(7)) {
        assert!(is_version(&answer, 7), "{answer}");
    }
    for answer in ask(&format!("[{},{}]", version(1), version(2))) {
        assert!(is_version(&answer[0], 1) && is_version(&answer[1], 2), "{answer}");
    }
    for answer in ask("garbage") {
        assert_eq!((&answer["error"]["code"], &answer["id"]), (&json!(-32700), &Value::Null));
    }
    for answer in ask(r#"{"jsonrpc":"2.0","id":"big","method":"cc_list_agents"}"#) {
        let words = answer["error"]["message"].as_str().unwrap();
        assert!(words.ends_with("a datagram holds 65507; ask over HTTP or the FIFO"), "{answer}");
        assert_eq!((&answer["error"]["code"], &answer["id"]), (&json!(500), &json!("big")));
    }
    let listed = Fifo(&scene).ask("r1", r#"{"jsonrpc":"2.0","id":1,"method":"cc_list_agents"}"#);
    assert_eq!(listed["result"]["Agents"].as_array().map(Vec::len), Some(3000), "{listed}");
    // A client that has gone, and one that does not read.
    let gone = UdpSocket::bind("127.0.0.1:0").unwrap();
    gone.send_to(version(1).as_bytes(), udp.peer_addr().unwrap()).unwrap();
    drop(gone);
    let deaf = UnixDatagram::bind(scene.path("deaf.sock")).unwrap();
    deaf.set_nonblocking(true).unwrap();
    let mut asked = 0;
    while asked < 2000 && deaf.send_to(version(1).as_bytes(), scene.path("mi.sock")).is_ok() {
        asked += 1;
    }
    for answer in ask(&version(8)) {
        assert!(is_version(&answer, 8), "{answer}");
    }
    let (code, log) = server.terminate();
    assert_eq!(code, Some(0), "{log}");
}

/// A connected datagram socket.
trait Puts {
    fn put(&self, text: &str);
    fn read(&self, buf: &mut [u8]) -> std::io::Result<usize>;

    /// The next datagram; signals of other tests' children do not end the wait.
    fn take(&self) -> Vec<u8> {
        let mut buf = vec![0; 65_536];
        loop {
            match self.read(&mut buf) {
                Err(e) if e.kind() == std::io::ErrorKind::Interrupted => {}
                n => return buf[..n.unwrap()].to_vec(),
            }
        }
    }
}

impl Puts for UdpSocket {
    fn put(&self, text: &str) {
        self.send(text.as_bytes()).unwrap();
    }

    fn read(&self, buf: &mut [u8]) -> std::io::Result<usize> {
        self.recv(buf)
    }
}

impl Puts for UnixDatagram {
    fn put(&self, text: &str) {
        self.send(text.as_bytes()).unwrap();
    }

    fn read(&self, buf: &mut [u8]) -> std::io::Result<usize> {
        self.recv(buf)
    }
}

#[test]
fn what_cannot_be_had_ends_the_start_with_its_name() {
    let scene = Scene::new();
    let server = start(&scene);
    let other = Scene::new();
    let refused = |set: &str| {
        let out = other.run(&["--listen", "udp:127.0.0.1:0", "--mi-http", "127.0.0.1:0", "--set", set]);
        assert_eq!(code(&out), 1, "{set}");
        stderr(&out)
    };
    let fifo = scene.path("mi.fifo");
    let taken = refused(&format!("mi.fifo={}", fifo.display()));
    assert!(taken.contains(&format!("{} is in use by another process", fifo.display())), "{taken}");
    let udp = server.ready["mi_datagram"][0].as_str().unwrap();
    assert!(refused(&format!("mi.datagram={udp}")).contains(&format!("cannot listen on {udp}")));
    let unix = format!("unix:{}", scene.path("mi.sock").display());
    assert!(refused(&format!("mi.datagram={unix}")).contains("is in use by another process"));
    assert!(refused("mi.fifo=no/such/fifo").contains("cannot use no/such/fifo"));
    let no_dir = other.run(&[
        "--listen",
        "udp:127.0.0.1:0",
        "--mi-http",
        "127.0.0.1:0",
        "--set",
        "mi.fifo=f",
        "--set",
        "mi.fifo_reply_dir=nowhere",
    ]);
    assert!(stderr(&no_dir).contains("[mi] fifo_reply_dir nowhere is not a directory"), "{}", stderr(&no_dir));
    let words = "`tcp:1.2.3.4:5` is not of the form udp:ADDR:PORT or unix:PATH, such as udp:127.0.0.1:8080";
    let bad = other.run(&["--set", "mi.datagram=tcp:1.2.3.4:5"]);
    assert!(code(&bad) == 2 && stderr(&bad).contains(words), "{}", stderr(&bad));
    let bad = other.run(&["--set", "mi.file_mode=rw"]);
    assert!(
        stderr(&bad).contains("`rw` is not a file mode, expected octal digits such as \"0660\""),
        "{}",
        stderr(&bad)
    );
}
