//! `http-api.md`: the description of the API, as `/openapi.json` serves it, for reading without a server.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Map, Value};

/// The tags in the order of the page, and the headings. No heading is that of a schema, too.
const TAGS: [(&str, &str); 6] = [
    ("subscriptions", "Subscriptions"),
    ("prefill", "Prefills"),
    ("messages", "Messages"),
    ("dead letters", "Dead letters"),
    ("events", "Events"),
    ("operation", "Health, metrics and description"),
];

/// So many operations with the same answer make it one of all, which is described once.
const COMMON: usize = 8;

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().trim().to_owned()
}

fn members(value: &Value) -> impl Iterator<Item = (&String, &Value)> {
    value.as_object().into_iter().flatten()
}

fn code(value: &Value) -> String {
    format!("`{}`", value.as_str().map_or_else(|| value.to_string(), str::to_owned))
}

/// A schema in a few words.
fn kind(schema: &Value) -> String {
    if let Some(name) = schema["$ref"].as_str().and_then(|path| path.rsplit('/').next()) {
        return format!("[{name}](#{})", name.to_lowercase());
    }
    if let Some(words) = schema["enum"].as_array() {
        return words.iter().filter(|word| !word.is_null()).map(code).collect::<Vec<_>>().join(", ");
    }
    if !schema["const"].is_null() {
        return code(&schema["const"]);
    }
    if let Some(any) = schema["anyOf"].as_array().filter(|_| schema["properties"].is_null()) {
        let kinds = any.iter().map(kind).filter(|kind| !kind.is_empty()).collect::<Vec<_>>();
        return kinds.join(" or ");
    }
    let types: Vec<String> = match &schema["type"] {
        Value::Array(types) => types.iter().map(text).collect(),
        one => vec![text(one)],
    };
    let types: Vec<String> = types
        .into_iter()
        .map(|of| match of.as_str() {
            "array" => format!("array of {}", kind(&schema["items"])),
            "object" if schema["properties"].is_object() => {
                let fields = members(&schema["properties"]).map(|(name, _)| format!("`{name}`"));
                format!("object: {}", fields.collect::<Vec<_>>().join(", "))
            }
            "object" if schema["additionalProperties"].get("type").is_some_and(|of| of != "null") => {
                format!("object of {}", kind(&schema["additionalProperties"]))
            }
            _ => of,
        })
        .collect();
    let mut kind = types.join(" or ");
    match (schema["minimum"].as_i64(), schema["maximum"].as_u64().filter(|most| *most < 1 << 32)) {
        (Some(least), Some(most)) => kind += &format!(", {least} to {most}"),
        (Some(least), None) => kind += &format!(", from {least} on"),
        _ => {}
    }
    if let Some(pattern) = schema["pattern"].as_str().filter(|pattern| pattern.len() < 60) {
        kind += &format!(", `{pattern}`");
    }
    if let Some(longest) = schema["maxLength"].as_u64() {
        kind += &format!(", at most {longest} characters");
    }
    if let Some(most) = schema["maxItems"].as_u64() {
        kind += &format!(", at most {most} items");
    }
    kind
}

/// The description of a schema, and its default.
fn meaning(of: &Value, schema: &Value) -> String {
    let mut meaning = text(&of["description"]).trim_end_matches('.').to_owned();
    let default = &schema["default"];
    if !default.is_null() {
        meaning += &format!("{}default {}", if meaning.is_empty() { "" } else { "; " }, code(default));
    }
    meaning
}

/// The fields of an object.
fn fields(schema: &Value) -> String {
    let required =
        |name: &str| schema["required"].as_array().is_some_and(|all| all.iter().any(|one| one == name));
    let rows = members(&schema["properties"]).map(|(name, field)| {
        let name = if required(name) { format!("`{name}` (required)") } else { format!("`{name}`") };
        vec![name, kind(field), meaning(field, field)]
    });
    reference::table(&["field", "type", "meaning"], rows)
}

/// The answers of operations: status, meaning and what the body is.
fn answers(operation: &Value) -> impl Iterator<Item = Vec<String>> {
    members(&operation["responses"]).map(|(status, answer)| {
        let types: Vec<String> = members(&answer["content"])
            .map(|(media, content)| match media.as_str() {
                "application/json" => kind(&content["schema"]),
                media => format!("`{media}`"),
            })
            .filter(|kind| !kind.is_empty())
            .collect();
        vec![status.clone(), text(&answer["description"]), types.join(" or ")]
    })
}

fn operation(path: &str, method: &str, operation: &Value, common: &BTreeSet<Vec<String>>) -> String {
    // As code, since mdBook takes {name} at the end of a heading for attributes.
    let mut made = format!("### `{} {path}`\n\n{}.", method.to_uppercase(), text(&operation["summary"]));
    let description = text(&operation["description"]);
    if !description.is_empty() {
        made += &format!(" {description}");
    }
    made += "\n\n";
    // The name of the subscription needs no words.
    let parameters = operation["parameters"].as_array().into_iter().flatten();
    let parameters: Vec<_> = parameters.filter(|parameter| parameter["name"] != "name").collect();
    if !parameters.is_empty() {
        let rows = parameters.into_iter().map(|parameter| {
            let schema = &parameter["schema"];
            vec![code(&parameter["name"]), text(&parameter["in"]), kind(schema), meaning(parameter, schema)]
        });
        made += &format!("{}\n", reference::table(&["parameter", "in", "type", "meaning"], rows));
    }
    let body = &operation["requestBody"]["content"]["application/json"]["schema"];
    if body["$ref"].is_string() {
        made += &format!("The body: {}.\n\n", kind(body));
    } else if body.is_object() {
        made += &format!("The body:\n\n{}\n", fields(body));
    }
    let (shared, own): (Vec<_>, Vec<_>) = answers(operation).partition(|answer| common.contains(answer));
    made += &reference::table(&["status", "meaning", "body"], own);
    if !shared.is_empty() {
        let statuses: Vec<&str> = shared.iter().map(|answer| answer[0].as_str()).collect();
        made += &format!("\nAlso [common answers](#common-answers): {}.\n", statuses.join(", "));
    }
    made + "\n"
}

#[test]
fn the_reference_of_the_api_is_that_of_the_code() {
    let document = api::openapi_document("/");
    let empty = Map::new();
    let paths = document["paths"].as_object().unwrap_or(&empty);
    let mut counts = BTreeMap::<Vec<String>, usize>::new();
    for answer in paths.values().flat_map(members).flat_map(|(_, operation)| answers(operation)) {
        *counts.entry(answer).or_default() += 1;
    }
    let common: BTreeSet<_> =
        counts.into_iter().filter(|(_, count)| *count >= COMMON).map(|(of, _)| of).collect();
    let table = reference::table(&["status", "meaning", "body"], common.iter().cloned());
    let mut made = format!("## Common answers\n\n{table}\n");
    let mut shown = 0;
    for (tag, title) in TAGS {
        made += &format!("## {title}\n\n");
        for (path, methods) in paths {
            // HEAD is as GET, without the content.
            for (method, of) in
                members(methods).filter(|(method, of)| *method != "head" && of["tags"][0] == tag)
            {
                made += &operation(path, method, of, &common);
                shown += 1;
            }
        }
    }
    let all = paths.values().flat_map(members).filter(|(method, _)| *method != "head").count();
    assert_eq!(shown, all, "each operation has one of the tags");
    made += "## Schemas\n\n";
    for (name, schema) in members(&document["components"]["schemas"]) {
        made += &format!("### {name}\n\n");
        let description = meaning(schema, schema);
        if !description.is_empty() {
            made += &format!("{description}.\n\n");
        }
        match schema["properties"].is_object() {
            true => made += &format!("{}\n", fields(schema)),
            false => made += &format!("{}.\n\n", kind(schema)),
        }
    }
    reference::keep("http-api.md", "the API", &made);
}
