//! `/openapi.json`: what the API takes and answers, errors included. A test asks every operation that stands here.

use serde_json::{Value, json};

use crate::selection;

/// The description of the API behind this root path, as `/openapi.json` serves it.
#[must_use]
pub fn document(root_path: &str) -> Value {
    json!({
        "openapi": "3.1.0",
        "info": {"title": "Provisioning REST APIs", "version": env!("CARGO_PKG_VERSION"),
                 "description": "Headstart: identity provisioning for openDesk and Nubus."},
        "servers": [{"url": root_path}],
        "security": [{"HTTPBasic": []}],
        "paths": {
            "/v1/subscriptions": {
                "get": operation("List all subscriptions", "Role: admin.", &[], None, &[
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
                    &[NAME], Some(json!({"type": "object", "additionalProperties": false, "minProperties": 1,
                        "properties": {
                            "realms_topics": {"type": "array", "items": schema("RealmTopic")},
                            "password": {"type": "string", "description": "At most 1024 bytes, no NUL. It counts \
                                within a second; until then both may."},
                            "prefill": {"type": "boolean", "description": "Ask for a prefill, as POST …/prefill does"},
                        }})), &[
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
                "post": operation("Ask for a prefill, anew or again",
                    "Role: admin, or the subscription itself. A failed one is tried again. After one that is done a \
                     new round begins: live events that were accepted before come first, what is unread of the former \
                     prefill is dropped, then the queue appears empty until the new prefill is done. With the \
                     mode resync it also tells the removal of what the consumer was told of and what does not exist any \
                     more: messages with an empty new, behind all objects. Their old has dn and objectType, and id and \
                     properties.univentionObjectIdentifier where they are known and the object has not only moved.",
                    &[NAME], Some(json!({"type": "object", "additionalProperties": false, "properties": {
                        "mode": {"enum": ["prefill", "resync"], "description": "Without it a failed one is tried again as \
                            it was, and a new round is a prefill. resync needs track at the registration"}}})), &[
                    (200, "One is pending or running already", Some(schema("Prefill"))),
                    (202, "Asked for", Some(schema("Prefill"))),
                    UNAUTHORIZED, NOT_FOUND,
                    (409, "The subscription is not ready, its queue is lost, it is not tracked (mode resync), or one with \
                     another mode is under way", DETAIL),
                    TOO_SLOW, TOO_LARGE, INVALID, INTERNAL, UNAVAILABLE,
                ]),
                "delete": operation("Cancel the prefill",
                    "Role: admin, or the subscription itself. What was written of it is never delivered; it counts as \
                     failed, and can be asked for again.",
                    &[NAME], None, &[
                    (200, "Cancelled", Some(schema("Prefill"))), UNAUTHORIZED, NOT_FOUND,
                    (409, "It has ended already, or the queue is lost", DETAIL), INTERNAL, UNAVAILABLE,
                ]),
                "patch": operation("Set the state of the prefill", "Role: prefill. Any transition is accepted.",
                    &[NAME], Some(json!({"type": "object", "required": ["status"], "properties": {"status": states()}})),
                    &[(200, "Set", NULL), UNAUTHORIZED, NOT_FOUND, TOO_SLOW, TOO_LARGE, INVALID, INTERNAL, UNAVAILABLE]),
            },
            "/v1/subscriptions/{name}/prefill/pause": {
                "post": operation("Pause the prefill",
                    "Role: admin, or the subscription itself. It waits, and its pod ends, until somebody resumes it; \
                     then it takes its turn and begins anew. Live events are kept meanwhile.",
                    &[NAME], None, &[
                    (200, "It is paused already", Some(schema("Prefill"))),
                    (202, "Paused", Some(schema("Prefill"))),
                    UNAUTHORIZED, NOT_FOUND, NOT_PAUSABLE, INTERNAL, UNAVAILABLE,
                ]),
            },
            "/v1/subscriptions/{name}/prefill/resume": {
                "post": operation("Resume the prefill", "Role: admin, or the subscription itself.", &[NAME], None, &[
                    (200, "It is not paused", Some(schema("Prefill"))),
                    (202, "Resumed", Some(schema("Prefill"))),
                    UNAUTHORIZED, NOT_FOUND, NOT_PAUSABLE, INTERNAL, UNAVAILABLE,
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
                    "Role: the subscription itself. Removes the message with this sequence_number and all that were \
                     delivered before it. `removed` is how many went.",
                    &[NAME],
                    Some(json!({"type": "object", "required": ["through"], "properties": {
                        "through": {"type": "integer", "minimum": 1, "description": "A message's sequence_number"}}})),
                    &[(200, "Removed", Some(object(&["removed"], json!({"removed": {"type": "integer", "minimum": 1}})))),
                      UNAUTHORIZED,
                      (404, "There is no such message: never was, acknowledged before, or not delivered yet", DETAIL),
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
                    "Role: admin, or the subscription itself. Oldest first, at most 1000.", &[NAME], None, &[
                    (200, "The dead letters", Some(json!({"type": "array", "items": schema("DeadLetter")}))),
                    UNAUTHORIZED, NOT_FOUND, INTERNAL, UNAVAILABLE,
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
                    (503, "NATS is away, or the event log is full because a consumer does not read; try again after \
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
/// Stands for `{"detail": string}`.
const DETAIL: Option<Value> = None;
const UNAUTHORIZED: Answer = (401, "No or wrong credentials, or not one's own subscription", DETAIL);
const NOT_FOUND: Answer = (404, "There is no such subscription", DETAIL);
const NOT_PAUSABLE: Answer = (409, "It has ended, or prefills are no Jobs here", DETAIL);
const TOO_SLOW: Answer = (408, "The body took too long to arrive", DETAIL);
const TOO_LARGE: Answer = (413, "The body is too large; the detail names the limit", DETAIL);
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
const UNAVAILABLE: Answer = (503, "NATS or Kubernetes is away; try again after Retry-After seconds", DETAIL);

/// Where, name, JSON type, meaning.
type Parameter = (&'static str, &'static str, &'static str, &'static str);

const NAME: Parameter = ("path", "name", "string", "Name of the subscription");
const SEQUENCE: Parameter = ("path", "seq_num", "integer", "The message's sequence_number");
const LETTER: Parameter = ("path", "id", "integer", "Number of the dead letter");
const TIMEOUT: Parameter = ("query", "timeout", "number", "Seconds to wait: 0.1 to 280, 5 if not given");
const LIMIT: Parameter = ("query", "limit", "integer", "Most messages: 1 to 1000, 100 if not given");
const WINDOW: Parameter = (
    "query",
    "window",
    "integer",
    "Most messages that are out and not acknowledged: 1 to 1000, 100 if not given",
);
const AFTER: Parameter = ("query", "after", "string", "As Last-Event-ID, which counts if both are given");
const LAST_EVENT_ID: Parameter = (
    "header",
    "Last-Event-ID",
    "string",
    "The id of the last message that was received: go on behind it. Without it all that is not acknowledged comes again",
);
const POP: Parameter = ("query", "pop", "boolean", "Remove the message on delivery, for good");

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
         15 s of silence comes a heartbeat: a comment, or an empty line. NATS being away does not end a stream. The \
         password counts when it begins. At its end comes the event `end` with {\"reason\": …}, in NDJSON the line \
         {\"end\": …}: `removed` (the \
         subscription), `stopping` (the server: connect again), `broken` (the queue is lost) or `error`.",
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
    operation["responses"]["200"]["content"] = json!({
        "text/event-stream": {"schema": {"type": "string"}},
        "application/x-ndjson": {"schema": schema("StreamedMessage")},
    });
    operation
}

fn operation(
    summary: &str,
    description: &str,
    parameters: &[Parameter],
    body: Option<Value>,
    answers: &[Answer],
) -> Value {
    let parameters: Vec<Value> = parameters
        .iter()
        .map(|(place, name, kind, meaning)| {
            json!({"in": place, "name": name, "required": *place == "path", "description": meaning,
                   "schema": {"type": kind}})
        })
        .collect();
    // Whoever has to log in can fail too often.
    let responses: serde_json::Map<String, Value> = answers
        .iter()
        .chain([&TOO_MANY])
        .map(|(status, meaning, body)| {
            let schema = match body {
                None => schema("Detail"),
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
    json!({"get": {"summary": summary, "security": [], "responses": responses}})
}

fn schema(name: &str) -> Value {
    json!({"$ref": format!("#/components/schemas/{name}")})
}

fn states() -> Value {
    json!({"enum": ["pending", "running", "failed", "done"]})
}

fn object(required: &[&str], properties: Value) -> Value {
    json!({"type": "object", "required": required, "properties": properties})
}

fn schemas() -> Value {
    let text = json!({"type": "string"});
    let count = json!({"type": "integer", "minimum": 0});
    let topics = json!({"type": "array", "items": schema("RealmTopic"),
                        "description": "The prefill comes in this order"});
    let publishers = json!({"enum": ["udm-listener", "ldif-producer", "udm-pre-fill", "consumer-registration", "consumer_client_test"]});
    let message = json!({
        "publisher_name": publishers, "ts": {"type": "string", "format": "date-time"}, "realm": text, "topic": text,
        "body": object(&["old", "new"], json!({"old": {"type": "object"}, "new": {"type": "object"}})),
    });
    let mut placed = message.clone();
    placed["sequence_number"] = json!({"type": "integer", "minimum": 1});
    placed["num_delivered"] = json!({"type": "integer", "minimum": 1});
    let mut streamed = placed.clone();
    streamed["event_id"] = json!({"type": "string", "pattern": "^[pl][1-9][0-9]*$",
                                  "description": "For after and Last-Event-ID; nothing else is to be read from it"});
    let message_fields = ["publisher_name", "ts", "realm", "topic", "body"];
    json!({
        "Detail": object(&["detail"], json!({"detail": text})),
        "Invalid": object(&["status_code", "message", "data", "errors"], json!({
            "status_code": {"const": 422}, "message": text, "data": {"type": "null"},
            "errors": {"type": "array", "items": object(&["loc", "msg", "type"], json!({
                "loc": {"type": "array", "items": {"type": ["string", "integer"]}}, "msg": text, "type": text,
            }))},
        })),
        "RealmTopic": object(&["realm", "topic"], json!({
            "realm": {"type": "string", "minLength": 1},
            "topic": {"type": "string", "minLength": 1,
                      "description": "A UDM module, or a regular expression that matches whole names"},
        })),
        "NewSubscription": object(&["name", "realms_topics", "request_prefill", "password"], json!({
            "name": {"type": "string", "pattern": "^[A-Za-z0-9_=-]{1,128}$"},
            "realms_topics": topics, "request_prefill": {"type": "boolean"},
            "password": {"type": "string", "description": "At most 1024 bytes, no NUL"},
            "selection": {"anyOf": [{"type": "null"}, schema("Selection")]},
            "track": {"type": "boolean", "default": false, "description": "Record what the consumer is told of, so that \
                a resync can tell what it must remove. It can't be changed later"},
        })),
        "Selection": selection::description(),
        "Subscription": object(&["name", "realms_topics", "request_prefill", "prefill_queue_status"], json!({
            "name": text, "realms_topics": topics, "request_prefill": {"type": "boolean"},
            "prefill_queue_status": states(), "selection": schema("Selection"), "prefill": schema("Prefill"),
            "track": {"type": "boolean", "description": "Can it be resynced? Absent: no"},
            "queue": object(&["prefill", "live", "dead_letters", "limit", "full", "bytes", "when_full", "swept"], json!({
                "prefill": count, "live": count, "dead_letters": count,
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
                "given_up": {"anyOf": [{"type": "null"}, object(&["at", "limit", "live", "prefill"], json!({
                    "at": {"type": "string", "format": "date-time"}, "limit": {"enum": ["messages", "bytes"]},
                    "live": {"type": "integer", "description": "Live messages that were lost"},
                    "prefill": {"type": "integer", "description": "Messages of the prefill that were lost"},
                }))]},
                "lost": {"anyOf": [{"type": "null"}, object(&["at", "incoming_seq"], json!({
                    "at": {"type": "string", "format": "date-time"},
                    "incoming_seq": {"type": "integer", "description": "Number of the first event that it may have missed"},
                }))]},
            })),
        })),
        "Prefill": object(&["state", "round", "attempt", "since", "boundary_known"], json!({
            "state": states(), "mode": {"enum": ["prefill", "resync"]}, "round": count, "attempt": count, "since": {"type": "string", "format": "date-time"},
            "reason": {"type": ["string", "null"]}, "message": {"type": ["string", "null"]},
            "boundary_known": {"type": "boolean"},
            "job": {"type": ["string", "null"], "description": "Name of its Job in Kubernetes"},
            "progress": {"anyOf": [{"type": "null"}, object(&["phase", "done", "skipped", "set_aside", "missing", "rate", "text"], json!({
                "phase": {"enum": ["waiting", "listing", "reading", "sealing", "done"]},
                "text": {"type": "string", "description": "All of it in a line for people"},
                "topic": {"type": ["string", "null"]}, "done": count, "total": {"type": ["integer", "null"]},
                "skipped": {"type": "integer", "description": "Objects that vanished while they were read"},
                "not_selected": {"type": "integer", "description": "Objects that the selection leaves out"},
                "removed": {"type": "integer", "description": "Messages of a resync that tell a removal"},
                "set_aside": {"type": "integer", "description": "Objects that are dead letters now"},
                "missing": {"type": "array", "items": text, "description": "Topics that are left out: the directory \
                    knows no such object type"},
                "warnings": {"type": "array", "items": text, "description": "What somebody should look at although the \
                    prefill goes on, or went well"},
                "rate": {"type": "number", "description": "Objects a second, of late"},
                "eta": {"type": ["number", "null"], "description": "Seconds until it is done, at that rate"},
                "error": {"type": ["string", "null"], "description": "What is being tried again"},
            }))]},
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
        "DeadLetter": object(&["id", "kept", "origin", "reason", "topic", "size", "limit", "at"], json!({
            "id": count, "kept": {"type": "boolean", "description": "Can it be sent again?"},
            "origin": {"type": "object"}, "reason": {"enum": ["TooLarge", "Unreadable"]}, "topic": text, "dn": text,
            "problem": {"type": "string", "description": "What was wrong, where the reason alone does not tell"},
            "size": {"type": "integer", "description": "Bytes"},
            "limit": {"type": "integer", "description": "Bytes that NATS carried then"},
            "at": {"type": "string", "format": "date-time"}, "incarnation": text,
        })),
        "Message": object(&message_fields, message),
        "ProvisioningMessage":
            object(&[&message_fields[..], &["sequence_number", "num_delivered"]].concat(), placed),
        "StreamedMessage":
            object(&[&message_fields[..], &["sequence_number", "num_delivered", "event_id"]].concat(), streamed),
    })
}
