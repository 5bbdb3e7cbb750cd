//! Commands about the server and its events.

use super::*;

const EVENT: &str = "E_CALLCENTER_AGENT_REPORT";

#[tokio::test]
async fn the_process_and_its_threads_are_listed_as_processes() {
    let b = bench(false).await;
    for (command, level) in [("ps", false), ("core:ps", false), ("log_level", true)] {
        let rows = b.call(command, json!([])).await.unwrap()["Processes"].clone();
        let first = &rows[0];
        let keys: Vec<&String> = first.as_object().unwrap().keys().collect();
        assert_eq!(keys, if level { ["PID", "Log level", "Type"] } else { ["ID", "PID", "Type"] });
        assert_eq!((&first["PID"], &first["Type"]), (&json!(std::process::id()), &json!("attendant")));
        assert!(rows.as_array().unwrap().iter().all(|r| r["PID"].is_u64() && r["Type"].is_string()));
    }
    // Logs that a test has not begun cannot be changed, and it is said so.
    let refused = b.call("log_level", json!([4])).await.unwrap_err();
    assert_eq!(refused.0, 500);
    let level = b.call("log_level", json!({"level": 9})).await.unwrap_err();
    assert_eq!(level, (-32602, "Bad value for parameter 'level': expected -3 (alerts) to 4 (debug)".to_owned()));
    assert_eq!(b.call("log_level", json!([4, 1])).await, Err((-32602, "Bad PID".to_owned())));
}

#[tokio::test]
async fn the_way_of_the_cdrs_is_told() {
    let b = bench(false).await;
    let told = b.call("cdr_status", json!([])).await.unwrap();
    let none = json!({"count": 0, "p50": 0.0, "p99": 0.0, "p99.9": 0.0, "max": 0.0});
    let all = json!({
        "Database": "ok", "Spool": "ok", "Queued": 0, "Waiting": 0, "In flight": 0, "Written": 0, "Retried": 0, "Spooled": 0,
        "In spool": 0, "Replayed": 0, "Set aside": 0, "Torn": 0, "Damaged": 0, "Spool errors": 0,
        "Durable [ms]": none, "Written [ms]": none,
    });
    assert_eq!(told, all);
    b.plane.cdrs.database_gone.store(true, std::sync::atomic::Ordering::Relaxed);
    assert_eq!(b.call("strowger:cdr_status", json!([])).await.unwrap()["Database"], "gone");
}

#[tokio::test]
async fn kill_asks_for_an_orderly_stop() {
    let b = bench(false).await;
    assert_eq!(b.call("core:kill", json!([])).await, Ok(json!("OK")));
    b.plane.killed().await;
}

#[tokio::test]
async fn subscriptions_are_made_listed_and_ended() {
    let b = bench(false).await;
    assert_eq!(b.call("events_list", json!([])).await, Ok(json!({"Events": [{"name": EVENT, "id": 0}]})));
    assert_eq!(b.call("subscribers_list", json!([])).await, Ok(json!({"Events": []})));
    assert_eq!(b.call("subscribers_list", json!([EVENT])).await, Ok(json!({"Event": {}})));
    let socket = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
    let name = format!("udp:{}", socket.local_addr().unwrap());
    assert_eq!(b.call("event_subscribe", json!([EVENT, name])).await, Ok(json!("OK")));
    assert_eq!(b.call("evi:subscribe", json!({"event": EVENT, "socket": name, "expire": "60"})).await, Ok(json!("OK")));
    let row = json!({"socket": name, "expire": 60, "ttl": 60, "lost": 0});
    let of_event = json!({"name": EVENT, "id": 0, "Subscribers": [row]});
    assert_eq!(b.call("evi:subscribers", json!([])).await, Ok(json!({"Events": [of_event]})));
    assert_eq!(b.call("subscribers_list", json!({"event": EVENT})).await, Ok(json!({"Event": of_event})));
    assert_eq!(
        b.call("subscribers_list", json!([EVENT, name])).await,
        Ok(json!({"Event": {"name": EVENT, "id": 0, "Subscriber": row}}))
    );
    let none = b.call("subscribers_list", json!([EVENT, "udp:127.0.0.1:9"])).await;
    assert_eq!(none, Err((404, "Subscriber does not exist".to_owned())));
    assert_eq!(b.call("subscribers_list", json!(["E_NOPE"])).await, Err((404, "Event not published".to_owned())));
    let negative = b.call("event_subscribe", json!([EVENT, name, -1])).await;
    assert_eq!(negative, Err((-32602, "Negative expire value".to_owned())));
    let unknown = b.call("event_subscribe", json!(["E_NOPE", name])).await;
    assert_eq!(unknown, Err((400, "there is no event `E_NOPE`; events_list names all".to_owned())));
    assert_eq!(b.call("event_subscribe", json!([EVENT, name, 0])).await, Ok(json!("OK")));
    assert_eq!(b.call("subscribers_list", json!([])).await, Ok(json!({"Events": []})));
}
