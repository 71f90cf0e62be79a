//! `/openapi.json`: what the API takes and answers, errors included. A test asks every operation that stands here.

use serde_json::{Value, json};

use broker::Readers;

use crate::{
    code::Code,
    fields::LARGEST_NUMBER,
    query::{DEFAULT_LIMIT, DEFAULT_POLL, DEFAULT_WINDOW, LARGEST_PAGE},
    request::{LONGEST_PASSWORD, LONGEST_WORD, MOST_TOPICS},
    selection,
};
use model::topic;

/// The description of the API behind this root path, as `/openapi.json` serves it.
#[must_use]
pub fn document(root_path: &str) -> Value {
    let mut document = described(root_path);
    if let Some(paths) = document["paths"].as_object_mut() {
        for (path, methods) in paths {
            for (method, operation) in methods.as_object_mut().into_iter().flatten() {
                finish(path, method, operation);
            }
        }
    }
    for path in ["/v1/subscriptions/{name}/prefill", "/v1/subscriptions/{name}/prefill/approve"] {
        document["paths"][path]["post"]["requestBody"]["required"] = json!(false);
    }
    document
}

/// Adds to an operation what all have: a name for generated clients, the part of the API that it belongs to, and the
/// headers of its answers.
fn finish(path: &str, method: &str, operation: &mut Value) {
    let (tag, id) = match (path, method) {
        ("/v1/subscriptions", "get") => ("subscriptions", "listSubscriptions"),
        ("/v1/subscriptions", _) => ("subscriptions", "registerSubscription"),
        ("/v1/subscriptions/{name}", "get") => ("subscriptions", "getSubscription"),
        ("/v1/subscriptions/{name}", "patch") => ("subscriptions", "changeSubscription"),
        ("/v1/subscriptions/{name}", _) => ("subscriptions", "removeSubscription"),
        ("/v1/subscriptions/{name}/prefill", "get") => ("prefill", "getPrefill"),
        ("/v1/subscriptions/{name}/prefill", "post") => ("prefill", "requestPrefill"),
        ("/v1/subscriptions/{name}/prefill", "patch") => ("prefill", "setPrefillState"),
        ("/v1/subscriptions/{name}/prefill", _) => ("prefill", "cancelPrefill"),
        ("/v1/subscriptions/{name}/prefill/pause", _) => ("prefill", "pausePrefill"),
        ("/v1/subscriptions/{name}/prefill/resume", _) => ("prefill", "resumePrefill"),
        ("/v1/subscriptions/{name}/prefill/approve", _) => ("prefill", "approvePrefill"),
        ("/v1/subscriptions/{name}/messages", _) => ("messages", "readMessages"),
        ("/v1/subscriptions/{name}/messages/stream", _) => ("messages", "streamMessages"),
        ("/v1/subscriptions/{name}/messages/next", _) => ("messages", "readNextMessage"),
        ("/v1/subscriptions/{name}/messages/acknowledgements", _) => ("messages", "acknowledgeMessages"),
        ("/v1/subscriptions/{name}/messages/{seq_num}/status", _) => ("messages", "acknowledgeMessage"),
        ("/v1/subscriptions/{name}/dead-letters", _) => ("dead letters", "listDeadLetters"),
        ("/v1/subscriptions/{name}/dead-letters/{id}", _) => ("dead letters", "removeDeadLetter"),
        ("/v1/subscriptions/{name}/dead-letters/{id}/redelivery", _) => {
            ("dead letters", "redeliverDeadLetter")
        }
        ("/v1/messages", _) => ("events", "sendEvent"),
        ("/healthz", "get") => ("operation", "isAlive"),
        ("/healthz", _) => ("operation", "headAlive"),
        ("/readyz", "get") => ("operation", "isReady"),
        ("/readyz", _) => ("operation", "headReady"),
        ("/metrics", "get") => ("operation", "getMetrics"),
        ("/metrics", _) => ("operation", "headMetrics"),
        ("/openapi.json", "get") => ("operation", "getDescription"),
        ("/openapi.json", _) => ("operation", "headDescription"),
        ("/docs", "get") => ("operation", "getDocs"),
        ("/docs", _) => ("operation", "headDocs"),
        _ => return,
    };
    operation["operationId"] = id.into();
    operation["tags"] = json!([tag]);
    for (status, answer) in operation["responses"].as_object_mut().into_iter().flatten() {
        let mut headers = json!({"X-Request-ID": header("The request's id if it is a UUID, else a new one")});
        match status.as_str() {
            "401" => headers["WWW-Authenticate"] = header("Basic"),
            "415" => headers["Accept-Encoding"] = header("identity: nothing is unpacked"),
            "429" => headers["Retry-After"] = header("Seconds until it is worth another try"),
            "503" if tag != "operation" => {
                headers["Retry-After"] = header("Seconds until it is worth another try");
            }
            "200" if matches!(id, "readMessages" | "readNextMessage") => {
                headers["Prefill-Status"] =
                    header("failed, and the reason, if nothing comes because the prefill has failed");
            }
            _ => {}
        }
        answer["headers"] = headers;
    }
}

fn header(meaning: &str) -> Value {
    json!({"description": meaning, "schema": {"type": "string"}})
}

fn described(root_path: &str) -> Value {
    json!({
        "openapi": "3.1.0",
        "info": {"title": "Provisioning REST APIs", "version": env!("CARGO_PKG_VERSION"),
                 "description": "Headstart: identity provisioning for openDesk and Nubus."},
        "servers": [{"url": root_path}],
        "security": [{"HTTPBasic": []}],
        "paths": {
            "/v1/subscriptions": {
                "get": operation("List all subscriptions", "Role: admin. By name. One whose queue can't be looked at in time has no \
                    queue here, and is as its entry says.", &[], None, &[
                    (200, "The subscriptions", Some(json!({"type": "array", "items": schema("Subscription")}))),
                    UNAUTHORIZED, INTERNAL, UNAVAILABLE,
                ]),
                "post": operation("Register a subscription",
                    "Role: admin. The same request again completes a registration that broke off.", &[],
                    Some(schema("NewSubscription")), &[
                    (200, "It was registered before, with the same parameters", NULL),
                    (201, "Registered: no later event is missed", NULL),
                    UNAUTHORIZED,
                    (409, "Registered with other parameters (the detail names the field), or its queue is lost", DETAIL),
                    TOO_SLOW, TOO_LARGE, INVALID, INTERNAL, UNAVAILABLE,
                ]),
            },
            "/v1/subscriptions/{name}": {
                "get": operation("Show a subscription", "Role: admin, or the subscription itself.", &[NAME], None, &[
                    (200, "The subscription, with the state of its prefill", Some(schema("Subscription"))),
                    UNAUTHORIZED, NOT_FOUND, INTERNAL, UNAVAILABLE,
                ]),
                "patch": operation("Change a subscription",
                    "Role: admin; the subscription itself may change its password and ask for a prefill. The queue is \
                     kept: events that are accepted after the answer come by the new topics.",
                    &[NAME], Some(schema("Change")), &[
                    (200, "The subscription as it is now", Some(schema("Subscription"))),
                    UNAUTHORIZED, NOT_FOUND,
                    (409, "A prefill with the former topics is under way, the subscription is not ready, or its queue \
                     is lost", DETAIL),
                    TOO_SLOW, TOO_LARGE, INVALID, INTERNAL, UNAVAILABLE,
                ]),
                "delete": operation("Remove a subscription and its queue", "Role: admin, or the subscription itself.",
                    &[NAME], None, &[(200, "Removed", NULL), UNAUTHORIZED, NOT_FOUND, INTERNAL, UNAVAILABLE]),
            },
            "/v1/subscriptions/{name}/prefill": {
                "get": operation("Show the prefill", "Role: admin, or the subscription itself.", &[NAME], None, &[
                    (200, "State, attempt, reason and progress", Some(schema("Prefill"))),
                    UNAUTHORIZED, NOT_FOUND, INTERNAL, UNAVAILABLE,
                ]),
                "post": operation("Request a prefill, or request it again",
                    "Role: admin, or the subscription itself. A failed one is tried again. After one that is done a \
                     new round begins: live events that were accepted before come first, what is unread of the former \
                     prefill is dropped, then the queue appears empty until the new prefill is done. With the \
                     mode resync it also reports the removal of what earlier messages mentioned and what no longer exists: \
                     messages with an empty new, after all objects. Their old has dn, objectType and properties, \
                     and id, uuid and properties.univentionObjectIdentifier where they are known and no living object \
                     has them. A move is a message with the former head as old and the object as new. More removals \
                     than max_removals are held: state failed, reason TooManyRemovals, and nothing of it is read until \
                     it is approved.",
                    &[NAME], Some(json!({"type": ["object", "null"], "additionalProperties": {"type": "null"}, "properties": {
                        "mode": {"enum": ["prefill", "resync", null], "description": "Without it a failed one is tried \
                            again as it was, and a new round is a prefill. resync needs track at the registration"},
                        "max_removals": max_removals(),
                        "dry_run": {"anyOf": [{"type": "null"}, schema("LaxBoolean")], "default": false, "description": "\
                            Read and compare, show the numbers (removals), and write nothing: the consumer does not \
                            notice. Without a mode it is a resync, where that can be"}}})), &[
                    (200, "One is pending or running already", Some(schema("Prefill"))),
                    (202, "Asked for", Some(schema("Prefill"))),
                    UNAUTHORIZED, NOT_FOUND,
                    (409, "The subscription is not ready, its queue is lost, it is not tracked (mode resync), another \
                     one is under way, or the former one is not done and read (dry_run)", DETAIL),
                    TOO_SLOW, TOO_LARGE, INVALID, INTERNAL, UNAVAILABLE,
                ]),
                "delete": operation("Cancel the prefill",
                    "Role: admin, or the subscription itself. What was written of it is never delivered; it counts as \
                     failed, and can be requested again.",
                    &[NAME], None, &[
                    (200, "Cancelled", Some(schema("Prefill"))), UNAUTHORIZED, NOT_FOUND,
                    (409, "It has ended already, or the queue is lost", DETAIL), INTERNAL, UNAVAILABLE,
                ]),
                "patch": operation("Set the state of the prefill", "Role: prefill. Any transition is accepted.",
                    &[NAME], Some(json!({"type": "object", "required": ["status"], "properties": {"status": states()}})),
                    &[(200, "Set", NULL), UNAUTHORIZED, NOT_FOUND,
                    (409, "A resync is not done by request", DETAIL), TOO_SLOW, TOO_LARGE, INVALID, INTERNAL, UNAVAILABLE]),
            },
            "/v1/subscriptions/{name}/prefill/pause": {
                "post": operation("Pause the prefill",
                    "Role: admin, or the subscription itself. It waits until somebody resumes it: its pod ends, or its \
                     worker stops within about a second; then it takes its turn and starts over. Live events are kept meanwhile.",
                    &[NAME], None, &[
                    (200, "It is paused already", Some(schema("Prefill"))),
                    (202, "Paused", Some(schema("Prefill"))),
                    UNAUTHORIZED, NOT_FOUND, ENDED, INTERNAL, UNAVAILABLE,
                ]),
            },
            "/v1/subscriptions/{name}/prefill/resume": {
                "post": operation("Resume the prefill", "Role: admin, or the subscription itself.", &[NAME], None, &[
                    (200, "It is not paused", Some(schema("Prefill"))),
                    (202, "Resumed", Some(schema("Prefill"))),
                    UNAUTHORIZED, NOT_FOUND, ENDED, INTERNAL, UNAVAILABLE,
                ]),
            },
            "/v1/subscriptions/{name}/prefill/approve": {
                "post": operation("Approve a prefill that is held",
                    "Role: admin. A resync that found more removals than it may report (max_removals) is complete and held: \
                     reason TooManyRemovals, with the numbers in removals. Approved, it is read as it was written. Sent \
                     again, it answers the same.",
                    &[NAME], Some(json!({"type": ["object", "null"], "additionalProperties": {"type": "null"}, "properties": {
                        "attempt": {"type": ["integer", "null"], "minimum": 1, "maximum": u32::MAX, "description": "The attempt whose numbers were looked \
                            at; another one is refused"}}})), &[
                    (200, "It is approved already", Some(schema("Prefill"))),
                    (202, "Approved", Some(schema("Prefill"))),
                    UNAUTHORIZED, NOT_FOUND, (409, "It is not held, or another attempt is", DETAIL),
                    TOO_SLOW, TOO_LARGE, INVALID, INTERNAL, UNAVAILABLE,
                ]),
            },
            "/v1/subscriptions/{name}/messages": {
                "get": operation("Read many messages",
                    "Role: the subscription itself. Waits for the first message, then answers what is there: at most \
                     `limit`, and no further one beyond 4 MiB. They are in the order of delivery, and all of the prefill \
                     or all live: live ones come when the prefill is acknowledged. Nothing is taken by reading: what is \
                     not acknowledged comes again, with num_delivered one higher, but not before the redelivery delay \
                     has passed since the first of them was given. `[]`: nothing came in time, or the prefill is not \
                     done; if it has failed, the header Prefill-Status says why.",
                    &[NAME, LIMIT, TIMEOUT], None, &[
                    (200, "The messages", Some(json!({"type": "array", "items": schema("ProvisioningMessage")}))),
                    UNAUTHORIZED, NOT_FOUND, INVALID, BROKEN, UNAVAILABLE,
                ]),
            },
            "/v1/subscriptions/{name}/messages/stream": {"get": stream()},
            "/v1/subscriptions/{name}/messages/acknowledgements": {
                "post": operation("Acknowledge a message and all before it",
                    "Role: the subscription itself. Removes the message with this sequence_number and all that come \
                     before it in the order of delivery. `removed` is how many went.",
                    &[NAME],
                    Some(json!({"type": "object", "required": ["through"], "properties": {
                        "through": {"type": "integer", "minimum": 1, "maximum": LARGEST_NUMBER, "description": "A message's sequence_number"}}})),
                    &[(200, "Removed", Some(object(&["removed"], json!({"removed": {"type": "integer", "minimum": 1}})))),
                      UNAUTHORIZED,
                      (404, "There is no such message: never was, acknowledged before, or behind a prefill that is not read", DETAIL),
                      TOO_SLOW, TOO_LARGE, INVALID, BROKEN, UNAVAILABLE]),
            },
            "/v1/subscriptions/{name}/messages/next": {
                "get": operation("Read the next message",
                    "Role: the subscription itself. Waits until there is one. `null`: nothing came in time, or the \
                     prefill is not done; if it has failed, the header Prefill-Status says why.",
                    &[NAME, TIMEOUT, POP], None, &[
                    (200, "The message, or null",
                     Some(json!({"anyOf": [schema("ProvisioningMessage"), {"type": "null"}]}))),
                    UNAUTHORIZED, NOT_FOUND, INVALID,
                    BROKEN, UNAVAILABLE,
                ]),
            },
            "/v1/subscriptions/{name}/messages/{seq_num}/status": {
                "patch": operation("Acknowledge a message", "Role: the subscription itself. The message is removed.",
                    &[NAME, SEQUENCE],
                    Some(json!({"type": "object", "required": ["status"], "properties": {"status": {"const": "ok"}}})),
                    &[(200, "Removed", NULL), UNAUTHORIZED,
                      (404, "There is no such message: never was, or acknowledged before", DETAIL),
                      TOO_SLOW, TOO_LARGE, INVALID,
                      BROKEN, UNAVAILABLE]),
            },
            "/v1/subscriptions/{name}/dead-letters": {
                "get": operation("List what the queue could not carry",
                    "Role: admin, or the subscription itself. Oldest first, in pages: the next one is behind the id of \
                     the last letter of this one, and one with fewer letters than `limit` is the last.",
                    &[NAME, AFTER_LETTER, PAGE], None, &[
                    (200, "The dead letters", Some(json!({"type": "array", "maxItems": LARGEST_PAGE, "items": schema("DeadLetter")}))),
                    UNAUTHORIZED, NOT_FOUND, INVALID, INTERNAL, UNAVAILABLE,
                ]),
            },
            "/v1/subscriptions/{name}/dead-letters/{id}": {
                "delete": operation("Remove a dead letter", "Role: admin, or the subscription itself.",
                    &[NAME, LETTER], None, &[
                    (200, "Removed", NULL), UNAUTHORIZED, NOT_FOUND, INVALID, INTERNAL, UNAVAILABLE,
                ]),
            },
            "/v1/subscriptions/{name}/dead-letters/{id}/redelivery": {
                "post": operation("Send a dead letter again",
                    "Role: admin, or the subscription itself. It goes to the end of the queue, so it comes after newer \
                     changes of the same object.", &[NAME, LETTER], None, &[
                    (202, "It is in the queue", NULL), UNAUTHORIZED, NOT_FOUND,
                    (409, "NATS still does not carry it, or it was not kept", DETAIL), INVALID, INTERNAL, UNAVAILABLE,
                ]),
            },
            "/v1/messages": {
                "post": operation("Send an event", "Role: events.", &[], Some(schema("Message")), &[
                    (202, "Stored: it will be delivered to every subscription of its topic", NULL),
                    UNAUTHORIZED, TOO_SLOW, TOO_LARGE, INVALID, INTERNAL,
                    (503, "NATS is unavailable, or the event log is full because a consumer does not read; try again after \
                     Retry-After seconds", DETAIL),
                ]),
            },
            "/healthz": public("Is the process alive?", &[(200, "Yes", "text/plain")]),
            "/readyz": public("Can requests be served?", &[
                (200, "Yes", "text/plain"), (503, "No; the body says why", "text/plain"),
            ]),
            "/metrics": public("Figures", &[(200, "OpenMetrics", "application/openmetrics-text")]),
            "/openapi.json": public("This description", &[(200, "OpenAPI 3.1", "application/json")]),
            "/docs": public("This description for people", &[(200, "A page", "text/html")]),
        },
        "components": {
            "securitySchemes": {"HTTPBasic": {"type": "http", "scheme": "basic"}},
            "schemas": schemas(),
        },
    })
}

/// Status, meaning, and what the body is.
type Answer = (u16, &'static str, Option<Value>);

const NULL: Option<Value> = Some(Value::Null);
/// Stands for the schema `Failure`.
const DETAIL: Option<Value> = None;
const UNAUTHORIZED: Answer = (401, "No or wrong credentials, or not one's own subscription", DETAIL);
const NOT_FOUND: Answer = (404, "There is no such subscription", DETAIL);
const ENDED: Answer = (409, "It has ended", DETAIL);
const TOO_SLOW: Answer = (408, "The body took too long to arrive", DETAIL);
const TOO_LARGE: Answer = (413, "The body is too large; the detail names the limit", DETAIL);
const UNKNOWN_CODING: Answer = (415, "The body is compressed: send it as it is", DETAIL);
const TOO_MANY: Answer = (
    429,
    "Too many failed logins, or too many polls or streams of this subscription at once; again after Retry-After seconds",
    DETAIL,
);
/// Stands for the schema `Invalid`.
const INVALID: Answer = (422, "A field is not valid; `errors` names it", Some(Value::Bool(true)));
const BROKEN: Answer = (
    500,
    "The queue is lost or was given up: remove the subscription and register it again; or as elsewhere",
    DETAIL,
);
const INTERNAL: Answer =
    (500, "Stored data can't be read, or an error of our own; the log says more", DETAIL);
const UNAVAILABLE: Answer =
    (503, "NATS or Kubernetes is unavailable; try again after Retry-After seconds", DETAIL);

/// Names of parameters.
const NAME: &str = "name";
const SEQUENCE: &str = "seq_num";
const LETTER: &str = "id";
const TIMEOUT: &str = "timeout";
const LIMIT: &str = "limit";
const WINDOW: &str = "window";
const AFTER: &str = "after";
const LAST_EVENT_ID: &str = "Last-Event-ID";
const POP: &str = "pop";
/// The same names at the dead letters.
const AFTER_LETTER: &str = "after a letter";
const PAGE: &str = "letters of a page";

fn parameter(name: &str) -> Value {
    let number = json!({"type": "integer", "minimum": 1, "maximum": LARGEST_NUMBER});
    let count = |most: usize, default: usize| json!({"type": "integer", "minimum": 1, "maximum": most, "default": default});
    let (place, schema, meaning) = match name {
        NAME => ("path", json!({"type": "string", "minLength": 1}), "Name of the subscription"),
        SEQUENCE => ("path", number, "The message's sequence_number"),
        LETTER => ("path", number, "Number of the dead letter"),
        TIMEOUT => (
            "query",
            json!({"type": "number", "default": DEFAULT_POLL.as_secs()}),
            "Seconds to wait: less than 0.1 means 0.1, more than 280 means 280",
        ),
        LIMIT => ("query", count(Readers::LARGEST_BATCH, DEFAULT_LIMIT), "Most messages"),
        WINDOW => (
            "query",
            count(Readers::LARGEST_WINDOW, DEFAULT_WINDOW),
            "Most messages that are out and not acknowledged",
        ),
        AFTER => ("query", event_id(), "As Last-Event-ID, which counts if both are given"),
        LAST_EVENT_ID => (
            "header",
            event_id(),
            "The id of the last message that was received: the stream continues after it. Without it everything \
             that is not acknowledged comes again",
        ),
        AFTER_LETTER => (
            "query",
            json!({"type": "integer", "minimum": 0, "maximum": LARGEST_NUMBER, "default": 0}),
            "The id of a dead letter: those after it are shown",
        ),
        PAGE => ("query", count(LARGEST_PAGE, LARGEST_PAGE), "Most dead letters"),
        _ => ("query", schema("LaxBoolean"), "Remove the message on delivery, for good"),
    };
    let name = match name {
        AFTER_LETTER => "after",
        PAGE => "limit",
        name => name,
    };
    json!({"in": place, "name": name, "required": place == "path", "description": meaning, "schema": schema})
}

fn event_id() -> Value {
    json!({"type": "string", "pattern": "^[pl][1-9][0-9]{0,18}$"})
}

fn prefill_state() -> Value {
    object(&["state"], json!({"state": states(), "reason": {"type": "string"}}))
}

fn end_of_stream() -> Value {
    object(&["reason"], json!({"reason": ends()}))
}

fn ends() -> Value {
    json!({"enum": ["removed", "stopping", "password", "broken", "error"]})
}

/// Messages as they come.
fn stream() -> Value {
    let mut operation = operation(
        "Read messages as they come",
        "Role: the subscription itself. One answer that does not end: with `Accept: text/event-stream` (or without) \
         server-sent events, with `application/x-ndjson` one message a line. An event of the kind `message` has the \
         message in `data`, as `next` gives it, and an id that names it; in NDJSON that is the field `event_id`. At \
         most `window` messages are out; acknowledge them by the other routes, at any replica, and more come. Live \
         messages come when the prefill is acknowledged. Nothing is sent twice over one connection; a new one begins \
         at once with all that is not acknowledged, with num_delivered one higher, or behind `Last-Event-ID`. After \
         15 s of silence comes a heartbeat: a comment, or an empty line. A stream outlasts an outage of NATS. \
         At its end comes the event `end` with {\"reason\": …}, in NDJSON the line \
         {\"end\": …}: `removed` (the \
         subscription), `stopping` (the server: connect again), `password` (it was changed: connect with the new one), \
         `broken` (the queue is lost) or `error`. When the prefill has failed, nothing comes: the header Prefill-Status \
         says so, and at the beginning and at each change the event `prefill` with {\"state\": …, \"reason\": …}, in \
         NDJSON the line {\"prefill\": …}.",
        &[NAME, WINDOW, LAST_EVENT_ID, AFTER],
        None,
        &[
            (200, "The messages", NULL),
            UNAUTHORIZED,
            NOT_FOUND,
            (406, "Accept names no form that there is", DETAIL),
            INVALID,
            BROKEN,
            UNAVAILABLE,
        ],
    );
    let event = json!({
        "type": "object", "required": ["event", "data"], "description": "Each event",
        "properties": {
            "event": {"enum": ["message", "prefill", "end"]},
            "id": event_id(),
            "data": {
                "type": "string", "contentMediaType": "application/json",
                "contentSchema": {"anyOf": [schema("ProvisioningMessage"), prefill_state(), end_of_stream()]},
            },
        },
    });
    let line = json!({
        "description": "Each line that is not empty",
        "anyOf": [
            schema("StreamedMessage"),
            object(&["prefill"], json!({"prefill": prefill_state()})),
            object(&["end"], json!({"end": ends()})),
        ],
    });
    operation["responses"]["200"]["content"] =
        json!({"text/event-stream": {"schema": event}, "application/x-ndjson": {"schema": line}});
    operation
}

fn operation(
    summary: &str,
    description: &str,
    parameters: &[&str],
    body: Option<Value>,
    answers: &[Answer],
) -> Value {
    let parameters: Vec<Value> = parameters.iter().map(|name| parameter(name)).collect();
    // Whoever has to log in can fail too often.
    let responses: serde_json::Map<String, Value> = answers
        .iter()
        .chain([&TOO_MANY])
        .chain(body.as_ref().map(|_| &UNKNOWN_CODING))
        .map(|(status, meaning, body)| {
            let schema = match body {
                None => schema("Failure"),
                Some(Value::Null) => json!({"type": "null"}),
                Some(Value::Bool(true)) => schema("Invalid"),
                Some(schema) => schema.clone(),
            };
            let answer = json!({"description": meaning, "content": {"application/json": {"schema": schema}}});
            (status.to_string(), answer)
        })
        .collect();
    let mut operation = json!({"summary": summary, "description": description, "parameters": parameters,
                               "responses": responses});
    if let Some(schema) = body {
        operation["requestBody"] =
            json!({"required": true, "content": {"application/json": {"schema": schema}}});
    }
    operation
}

/// A path that asks for no credentials. Each answer: status, meaning, media type.
fn public(summary: &str, answers: &[(u16, &str, &str)]) -> Value {
    let responses: serde_json::Map<String, Value> = answers
        .iter()
        .map(|(status, meaning, media_type)| {
            (status.to_string(), json!({"description": meaning, "content": {*media_type: {}}}))
        })
        .collect();
    let head: serde_json::Map<String, Value> = answers
        .iter()
        .map(|(status, meaning, _)| (status.to_string(), json!({"description": meaning})))
        .collect();
    json!({
        "get": {"summary": summary, "security": [], "responses": responses},
        "head": {"summary": format!("{summary} Without the content"), "security": [], "responses": head},
    })
}

fn schema(name: &str) -> Value {
    json!({"$ref": format!("#/components/schemas/{name}")})
}

fn max_removals() -> Value {
    let percent = json!({"type": ["integer", "null"], "minimum": 0, "maximum": 100, "default": 20});
    let objects =
        json!({"type": ["integer", "null"], "minimum": 0, "maximum": LARGEST_NUMBER, "default": 20});
    json!({
        "description": "How many removals a resync may report without an approval: a number; or more than percent of \
            what was known and more than objects, and never all of a type that had several. Absent: as the installation \
            has it",
        "type": ["integer", "object", "null"], "minimum": 0, "maximum": LARGEST_NUMBER,
        "additionalProperties": {"type": "null"}, "properties": {"percent": percent, "objects": objects},
    })
}

fn removals() -> Value {
    let known = json!({"type": "integer", "description": "Objects that the consumer knew before"});
    let removed = json!({"type": "integer", "description": "Those of them that are gone"});
    let of = object(&["known", "removed"], json!({"known": known, "removed": removed}));
    json!({"type": ["object", "null"], "description": "What a resync found, by type", "additionalProperties": of})
}

fn states() -> Value {
    json!({"enum": ["pending", "running", "failed", "done"]})
}

/// The shape of all failures, that of RFC 9457 among them, and more members.
fn failure(required: &[&str], mut members: Value) -> Value {
    members["detail"] = json!({"type": "string", "description": "What is wrong in this case, for people"});
    members["code"] = json!({"enum": Code::words(), "description": "What is wrong, for programs"});
    members["type"] = json!({"type": "string", "description": "urn:headstart:error: and the code"});
    members["title"] = json!({"type": "string", "description": "What the code means"});
    members["status"] = json!({"type": "integer"});
    object(&[&["detail", "code", "type", "title", "status"], required].concat(), members)
}

fn object(required: &[&str], properties: Value) -> Value {
    json!({"type": "object", "required": required, "properties": properties})
}

/// What waits in a queue.
fn queue() -> Value {
    let count = json!({"type": "integer", "minimum": 0});
    let time = json!({"type": "string", "format": "date-time"});
    let given_up = object(
        &["at", "limit", "live", "prefill"],
        json!({
            "at": time, "limit": {"enum": ["messages", "bytes"]},
            "live": {"type": "integer", "description": "Live messages that were lost"},
            "prefill": {"type": "integer", "description": "Messages of the prefill that were lost"},
        }),
    );
    let lost = object(
        &["at", "incoming_seq"],
        json!({
            "at": time,
            "incoming_seq": {"type": "integer", "description": "Number of the first event that it may have missed"},
        }),
    );
    object(
        &["prefill", "live", "dead_letters", "limit", "full", "bytes", "when_full", "swept"],
        json!({
            "prefill": count, "live": count, "dead_letters": count,
            "oldest_at": {"type": ["string", "null"], "format": "date-time", "description": "When the oldest message \
                that waits was written; null: none waits"},
            "last_read_at": {"type": ["string", "null"], "format": "date-time", "description": "When its consumer \
                last asked for messages, to the minute; null: never, or before this was noted"},
            "limit": {"type": "integer", "description": "Most messages of each kind. A prefill that reaches it \
                waits, and live events do what when_full says"},
            "full": {"type": "boolean"},
            "bytes": {"type": "integer", "description": "Bytes of the whole queue"},
            "limit_bytes": {"type": ["integer", "null"], "description": "Most of them, about; live events do what \
                when_full says"},
            "limit_age": {"type": ["number", "null"], "description": "Seconds after which a live message that \
                was not acknowledged is removed"},
            "when_full": {"enum": ["wait", "give-up"], "description": "wait: events wait in the event log; \
                give-up: the queue is deleted, and the subscription must be removed and registered again"},
            "swept": {"type": "integer", "description": "Live messages that were removed by age so far"},
            "given_up": {"anyOf": [{"type": "null"}, given_up]},
            "lost": {"anyOf": [{"type": "null"}, lost]},
        }),
    )
}

/// A time that is sent: a date with or without a time and an offset, or a number.
const TIMESTAMP: &str = "^([0-9]{4}-[0-9]{2}-[0-9]{2}([Tt _][0-9]{2}:[0-9]{2}(:[0-9]{2}([.,][0-9]+)?)? *\
    ([Zz]|[+-][0-9]{2}(:?[0-9]{2})?)?)?|[+-]?[0-9]+([.][0-9]+)?)$";

/// The body of an event that is sent: one of its sides says which type of object it is.
fn sent_body() -> Value {
    const FORMER: &str = "objectType";
    const NEWER: &str = "univentionObjectType";
    let says = |word: &str| {
        let nothing = json!([null, false, 0, "", [], {}]);
        json!({"required": [word], "properties": {word: {"not": {"enum": nothing}}}})
    };
    let of = |old: Value, new: Value| json!({"properties": {"old": old, "new": new}});
    let either = |word: &str| json!([of(says(word), json!({})), of(json!({}), says(word))]);
    let without = json!({"not": {"required": [NEWER]}});
    let former = json!({"allOf": [of(without.clone(), without), {"anyOf": either(FORMER)}]});
    let mut body = object(&["old", "new"], json!({"old": {"type": "object"}, "new": {"type": "object"}}));
    body["description"] = json!(
        "The object before and after the change; {} where there is none. One of them has an objectType, or \
         univentionObjectType if that is used. DN, id, uuid and univentionObjectIdentifier have at most 64 KiB each"
    );
    body["anyOf"] = json!([{"anyOf": either(NEWER)}, former]);
    body
}

fn schemas() -> Value {
    let text = json!({"type": "string"});
    let count = json!({"type": "integer", "minimum": 0});
    let topics = json!({"type": "array", "items": schema("RealmTopic"),
                        "description": "The prefill comes in this order"});
    let publishers = json!({"enum": ["udm-listener", "ldif-producer", "udm-pre-fill", "consumer-registration", "consumer_client_test"]});
    // One of these is set.
    let set = ["realms_topics", "password", "prefill"]
        .map(|field| json!({"required": [field], "properties": {field: {"not": {"type": "null"}}}}));
    let mut asked_topics = topics.clone();
    asked_topics["maxItems"] = json!(MOST_TOPICS);
    let password = json!({"type": "string", "pattern": "^[^\\u0000]*$", "maxLength": LONGEST_PASSWORD,
                          "description": "No NUL"});
    // Not `date-time`: the messages of a prefill, and those of many producers, have no offset.
    let ts = json!({"type": "string", "examples": ["2026-11-23T21:42:57.228964", "2026-01-31T12:00:00+00:00"],
        "pattern": r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d{6})?([+-]\d\d:\d\d)?$",
        "description": "As Python's isoformat() writes it: without an offset if the producer gave none"});
    let message = json!({
        "publisher_name": publishers, "ts": ts, "realm": text, "topic": text,
        "body": object(&["old", "new"], json!({"old": {"type": "object"}, "new": {"type": "object"}})),
    });
    let mut placed = message.clone();
    placed["sequence_number"] = json!({"type": "integer", "minimum": 1,
        "description": "Names the message in this queue, for its acknowledgement. Numbers of live messages are above 2^52"});
    placed["num_delivered"] = json!({
        "type": "integer", "minimum": 1,
        "description": "How often this replica of the API has delivered it, since it was started. With several replicas \
                        a message may have been delivered more often.",
    });
    let mut streamed = placed.clone();
    streamed["event_id"] = json!({"type": "string", "pattern": "^[pl][1-9][0-9]*$",
                                  "description": "For after and Last-Event-ID; nothing else is to be read from it"});
    let mut sent = message.clone();
    sent["ts"] = json!({
        "description": "RFC 3339, also without offset, seconds or time of day; or seconds or milliseconds since 1970. Years 1 \
            to 9999",
        "examples": ["2026-01-31T12:00:00+00:00", 1_700_000_000],
        "anyOf": [
            {"type": "string", "format": "timestamp", "pattern": TIMESTAMP},
            // As milliseconds, that is: of seconds a number can't be as large.
            {"type": "number", "minimum": -62_135_596_800_000_i64, "maximum": 253_402_207_200_000_i64},
        ],
    });
    sent["body"] = sent_body();
    for word in ["realm", "topic"] {
        sent[word]["maxLength"] = json!(LONGEST_WORD);
    }
    let message_fields = ["publisher_name", "ts", "realm", "topic", "body"];
    json!({
        "Failure": failure(&[], json!({})),
        "Invalid": failure(&["status_code", "message", "data", "errors"], json!({
            "status_code": {"const": 422}, "message": text, "data": {"type": "null"},
            "errors": {"type": "array", "items": object(&["loc", "msg", "type"], json!({
                "loc": {"type": "array", "items": {"type": ["string", "integer"]}}, "msg": text, "type": text,
            }))},
        })),
        "RealmTopic": object(&["realm", "topic"], json!({
            "realm": {"type": "string", "minLength": 1, "maxLength": LONGEST_WORD},
            "topic": {"type": "string", "minLength": 1, "maxLength": topic::LONGEST, "format": "re2", "examples": ["users/user", "groups/.*"],
                      "description": "A UDM module, or a regular expression that matches whole names: as RE2 has them, so \
                          without look-around and back references, and 128 KiB when it is compiled"},
        })),
        "NewSubscription": object(&["name", "realms_topics", "request_prefill", "password"], json!({
            "name": {"type": "string", "pattern": "^[A-Za-z0-9_=-]{1,128}$"},
            "realms_topics": asked_topics, "request_prefill": schema("LaxBoolean"), "password": password,
            "selection": {"anyOf": [{"type": "null"}, schema("Selection")]},
            "track": {"anyOf": [{"type": "null"}, schema("LaxBoolean")], "default": false, "description": "Record which objects the messages mention, so \
                that a resync can report what the consumer must remove. It can't be changed later"},
            "max_removals": max_removals(),
        })),
        "Change": {
            "type": "object", "additionalProperties": {"type": "null"},
            "properties": {
                "realms_topics": {"anyOf": [{"type": "null"}, asked_topics]},
                "password": {"anyOf": [{"type": "null"}, password], "description": "It counts within a second; until \
                    then both may"},
                "prefill": {"anyOf": [{"type": "null"}, schema("LaxBoolean")], "description": "Ask for a prefill, as \
                    POST …/prefill does"},
            },
            "anyOf": set,
        },
        "LaxBoolean": {
            "description": "A boolean, or what the former service takes for one",
            "anyOf": [
                {"type": "boolean"}, {"enum": [0, 1]},
                {"type": "string", "pattern": "^([Tt][Rr][Uu][Ee]|[Ff][Aa][Ll][Ss][Ee]|[Yy]([Ee][Ss])?|[Nn][Oo]?|\
                    [Oo][Nn]|[Oo][Ff][Ff]|[TtFf01])$"},
            ],
        },
        "Selection": selection::description(),
        "Subscription": object(&["name", "realms_topics", "request_prefill", "prefill_queue_status"], json!({
            "name": text, "realms_topics": topics, "request_prefill": {"type": "boolean"},
            "prefill_queue_status": states(), "selection": schema("Selection"), "prefill": schema("Prefill"),
            "track": {"type": "boolean", "description": "Can it be resynced? Absent: no"},
            "max_removals": max_removals(),
            "lifecycle": {"enum": ["registering", "ready"], "description": "registering: the registration is under way, \
                or broke off; the same request again completes it"},
            "created": {"type": "string", "format": "date-time", "description": "When the name was registered"},
            "queue": queue(),
        })),
        "Prefill": object(&["state", "round", "attempt", "since", "boundary_known"], json!({
            "state": states(), "mode": {"enum": ["prefill", "resync"]}, "round": count, "attempt": count, "since": {"type": "string", "format": "date-time"},
            "dry_run": {"type": "boolean", "description": "It only counts"}, "max_removals": max_removals(),
            "removals": removals(),
            "reason": {"type": ["string", "null"]}, "message": {"type": ["string", "null"]},
            "boundary_known": {"type": "boolean"},
            "job": {"type": ["string", "null"], "description": "Name of its Job in Kubernetes"},
            "progress": {"anyOf": [{"type": "null"}, schema("Progress")]},
            "paused": {"type": "boolean", "description": "It waits until somebody resumes it"},
            "attempts": {"type": "array", "description": "The last ten attempts that have ended, oldest first",
                "items": object(&["attempt", "round", "state", "ended"], json!({
                    "attempt": count, "round": count, "state": {"enum": ["failed", "done"]},
                    "reason": text, "message": text,
                    "started": {"type": "string", "format": "date-time", "description": "When it was first seen to run"},
                    "ended": {"type": "string", "format": "date-time"},
                    "objects": {"type": "integer", "description": "Messages that it wrote"},
                }))},
        })),
        "Progress": object(&["phase", "done", "skipped", "set_aside", "missing", "rate", "text"], json!({
            "phase": {"enum": ["waiting", "listing", "reading", "sealing", "done"]},
            "text": {"type": "string", "description": "All of it in a line for people"},
            "topic": {"type": ["string", "null"]}, "done": count, "total": {"type": ["integer", "null"]},
            "skipped": {"type": "integer", "description": "Objects that vanished while they were read"},
            "not_selected": {"type": "integer", "description": "Objects that the selection leaves out"},
            "removed": {"type": "integer", "description": "Messages of a resync that report a removal"},
            "set_aside": {"type": "integer", "description": "Objects that are dead letters now"},
            "missing": {"type": "array", "items": text, "description": "Topics that are left out: the directory \
                knows no such object type"},
            "warnings": {"type": "array", "items": text, "description": "What somebody should check although the \
                prefill continues, or is done"},
            "rate": {"type": "number", "description": "Objects a second, of late"},
            "eta": {"type": ["number", "null"], "description": "Seconds until it is done, at that rate"},
            "error": {"type": ["string", "null"], "description": "What is being retried"},
        })),
        "DeadLetter": object(&["id", "kept", "origin", "reason", "topic", "size", "limit", "at"], json!({
            "id": count, "kept": {"type": "boolean", "description": "Can it be sent again?"},
            "origin": {"type": "object"}, "reason": {"enum": ["TooLarge", "Unreadable"]}, "topic": text, "dn": text,
            "problem": {"type": "string", "description": "What was wrong, where the reason alone does not say it"},
            "size": {"type": "integer", "description": "Bytes"},
            "limit": {"type": "integer", "description": "Bytes that NATS carried then"},
            "at": {"type": "string", "format": "date-time"}, "incarnation": text,
        })),
        "Message": object(&message_fields, sent),
        "ProvisioningMessage":
            object(&[&message_fields[..], &["sequence_number", "num_delivered"]].concat(), placed),
        "StreamedMessage":
            object(&[&message_fields[..], &["sequence_number", "num_delivered", "event_id"]].concat(), streamed),
    })
}
