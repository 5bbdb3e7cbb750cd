//! Commands about events and their subscribers.

use super::MiError;
use super::params::Args;
use crate::control::ControlPlane;
use crate::control::events::{EVENTS, SubscribeError, Subscriber};
use serde_json::{Map, Value, json};

/// What can be subscribed to.
pub fn events() -> Value {
    let rows: Vec<Value> = EVENTS.iter().enumerate().map(|(id, name)| json!({"name": name, "id": id})).collect();
    json!({"Events": rows})
}

/// Begins, renews, or with `expire` 0 ends a subscription.
pub async fn subscribe(plane: &ControlPlane, args: Args<'_>) -> Result<Value, MiError> {
    let event = args.text("event")?.unwrap_or_default();
    let socket = args.text("socket")?.unwrap_or_default();
    let expire = match args.integer("expire")? {
        None => None,
        Some(expire) => match u64::try_from(expire) {
            Ok(expire) => Some(expire),
            Err(_) => return Err(MiError::invalid_params("Negative expire value")),
        },
    };
    match plane.events.subscribe(&event, &socket, expire).await {
        Ok(()) => Ok(json!("OK")),
        Err(error @ SubscribeError::Full) => Err(MiError::new(503, "Too many subscribers").because(error)),
        Err(error) => Err(MiError::new(400, "Bad parameter value").because(error)),
    }
}

/// All subscribers, those of one event, or one.
pub fn subscribers(plane: &ControlPlane, args: &Args<'_>) -> Result<Value, MiError> {
    let all = plane.events.list();
    let Some(asked) = args.text("event")? else {
        let with = |event: &&&str| all.iter().any(|s| s.event == **event);
        let rows: Vec<Value> = EVENTS.iter().filter(with).map(|event| event_row(event, &all)).collect();
        return Ok(json!({"Events": rows}));
    };
    let published = EVENTS.into_iter().find(|e| *e == asked);
    let event = published.ok_or_else(|| MiError::new(404, "Event not published"))?;
    let Some(socket) = args.text("socket")? else { return Ok(json!({"Event": event_row(event, &all)})) };
    let found = plane.events.find(event, &socket).ok_or_else(|| MiError::new(404, "Subscriber does not exist"))?;
    let id = EVENTS.iter().position(|e| *e == event);
    Ok(json!({"Event": {"name": event, "id": id, "Subscriber": subscriber_row(&found)}}))
}

/// An event that nobody hears is an empty object, as in the reference.
fn event_row(event: &str, all: &[Subscriber]) -> Value {
    let rows: Vec<Value> = all.iter().filter(|s| s.event == event).map(subscriber_row).collect();
    if rows.is_empty() {
        return Value::Object(Map::new());
    }
    json!({"name": event, "id": EVENTS.iter().position(|e| *e == event), "Subscribers": rows})
}

/// The reference's keys, then ours.
fn subscriber_row(s: &Subscriber) -> Value {
    json!({"socket": s.socket, "expire": s.expire_s, "ttl": s.ttl_s, "lost": s.lost})
}
