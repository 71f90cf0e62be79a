//! The selection of a registration: parsed, with an error for each part that can't be evaluated.

use model::{
    Selection,
    selection::{LONGEST_FILTER, LONGEST_POSITION, LONGEST_PROPERTY, MOST_CONDITIONS, Properties},
};
use serde_json::{Value, json};

use crate::{
    error::{Place, Problem},
    fields::Fields,
};

const EXPECTED: &str = "an object with filter, position or properties is expected, as \
    {\"filter\": \"(mailPrimaryAddress=*)\", \"properties\": {\"strip\": [\"jpegPhoto\"]}}";
const PROPERTIES: &str =
    "an object with either keep or strip is expected, each a list of names of properties";

/// Reads the field `selection`. Absent, `null` and `{}` are the same: all comes.
pub(crate) fn parse(fields: &Fields<'_>) -> Result<Option<Selection>, Vec<Problem>> {
    let Some(raw) = fields.get("selection") else { return Ok(None) };
    let at = |places: &[&dyn Place], kind, msg: &str| {
        let all: Vec<&dyn Place> =
            [&"body" as &dyn Place, &"selection"].into_iter().chain(places.iter().copied()).collect();
        Problem::new(&all, kind, msg)
    };
    let parts = match serde_json::from_str(raw.get()) {
        Ok(Value::Object(parts)) => parts,
        Ok(Value::Null) => return Ok(None),
        Ok(_) | Err(_) => return Err(vec![at(&[], "model_type", EXPECTED)]),
    };
    let mut problems = Vec::new();
    let mut selection = Selection::default();
    for (name, value) in &parts {
        match (name.as_str(), value) {
            (_, Value::Null) => {}
            ("filter", Value::String(text)) => selection.filter = Some(text.clone()),
            ("position", Value::String(text)) => selection.position = Some(text.clone()),
            ("filter" | "position", _) => {
                problems.push(at(&[&name.as_str()], "string_type", "a string is expected"))
            }
            ("properties", value) => match properties(value) {
                Some(properties) => selection.properties = properties,
                None => problems.push(at(&[&name.as_str()], "model_type", PROPERTIES)),
            },
            // A part that is not understood would let through what was not meant to come.
            _ => problems.push(at(
                &[&name.as_str()],
                "extra_forbidden",
                "only filter, position and properties are known",
            )),
        }
    }
    let Selection { filter, position, properties } = selection.clone();
    for part in [
        Selection { filter, ..Selection::default() },
        Selection { position, ..Selection::default() },
        Selection { properties, ..Selection::default() },
    ] {
        if let Err(error) = part.check_size().and_then(|()| part.compile().map(drop)) {
            problems.push(at(&[&error.field], "selection_invalid", &error.problem));
        }
    }
    if problems.is_empty() { Ok((!selection.is_empty()).then_some(selection)) } else { Err(problems) }
}

/// `None`: this is no such thing. `Some(None)`: nothing is asked for.
fn properties(value: &Value) -> Option<Option<Properties>> {
    let parts = value.as_object().filter(|parts| !parts.is_empty())?;
    let mut set = parts.iter().filter(|(_, value)| !value.is_null());
    let names = |value: &Value| -> Option<Vec<String>> {
        value.as_array()?.iter().map(|name| name.as_str().map(str::to_owned)).collect()
    };
    let Some((key, value)) = set.next() else { return Some(None) };
    match key.as_str() {
        _ if set.next().is_some() => None,
        "keep" => Some(Some(Properties::Keep(names(value)?))),
        "strip" => Some(Some(Properties::Strip(names(value)?))),
        _ => None,
    }
}

/// What the description of the API says of it.
pub(crate) fn description() -> Value {
    let list_of = |word: &str| {
        // A list of nothing to keep has a meaning: that there is an object.
        let least = usize::from(word == "strip");
        let name = json!({"type": "string", "pattern": "\\S", "maxLength": LONGEST_PROPERTY});
        let names = json!({"type": ["array", "null"], "items": name, "minItems": least, "maxItems": 1000});
        json!({"type": "object", "additionalProperties": {"type": "null"}, "minProperties": 1, "properties": {word: names}})
    };
    let conditions = format!(
        "LDAP filter (RFC 4515) over names of UDM properties, such as (&(mailPrimaryAddress=*)(!(disabled=TRUE))). \
         Values are compared without regard to case, and >= and <= as numbers where both are. At most {MOST_CONDITIONS} \
         conditions, 32 within each other. No extensible matches, no attributes of LDAP"
    );
    json!({
        "type": "object", "additionalProperties": {"type": "null"},
        "description": "Which objects of its topics a subscription gets, and which of their properties: of the prefill \
            and live alike. An object that comes to be selected by a change comes as a new one (old is {}), one that is \
            no longer selected as a deletion (new is {}). It never changes. Events of other realms than udm are not \
            looked at.",
        "properties": {
            "filter": {"type": ["string", "null"], "format": "ldap-filter", "pattern": "\\(", "maxLength": LONGEST_FILTER,
                       "examples": ["(mailPrimaryAddress=*)"], "description": conditions},
            "position": {"type": ["string", "null"], "format": "ldap-dn", "pattern": "=", "maxLength": LONGEST_POSITION,
                         "examples": ["ou=berlin,dc=example,dc=org"],
                         "description": "DN (RFC 4514): this object and all below it"},
            "properties": {
                "description": "Properties that come (keep), or all but these (strip). What else an object holds \
                    always comes, and the filter sees all",
                "anyOf": [{"type": "null"}, list_of("keep"), list_of("strip")],
            },
        },
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(selection: &Value) -> Result<Option<Selection>, Vec<(String, &'static str)>> {
        let text = json!({"selection": selection}).to_string();
        let fields = serde_json::from_str(&text).unwrap();
        let place = |p: Problem| (p.loc[2..].iter().map(|p| p.as_str().unwrap()).collect(), p.kind);
        parse(&fields).map_err(|problems| problems.into_iter().map(place).collect())
    }

    #[test]
    fn selections() {
        let unset = json!({"filter": null, "position": null, "properties": {"keep": null, "strip": null}});
        for nothing in [json!(null), json!({}), json!({"filter": null}), unset] {
            assert_eq!(parsed(&nothing), Ok(None));
        }
        let all = json!({"filter": "(mail=*)", "position": "dc=x", "properties": {"keep": ["mail"]}});
        let expected = Selection {
            filter: Some("(mail=*)".into()),
            position: Some("dc=x".into()),
            properties: Some(Properties::Keep(vec!["mail".into()])),
        };
        assert_eq!(parsed(&all), Ok(Some(expected.clone())));
        let mut unset = all;
        unset["properties"]["strip"] = json!(null);
        assert_eq!(parsed(&unset), Ok(Some(expected)));
        for (bad, problems) in [
            (json!("(mail=*)"), vec![("", "model_type")]),
            (
                json!({"filter": 1, "position": []}),
                vec![("filter", "string_type"), ("position", "string_type")],
            ),
            (json!({"filters": "(a=b)"}), vec![("filters", "extra_forbidden")]),
            (
                json!({"filter": "mail=*", "position": "school", "properties": {"strip": []}}),
                vec![
                    ("filter", "selection_invalid"),
                    ("position", "selection_invalid"),
                    ("properties", "selection_invalid"),
                ],
            ),
            (json!({"filter": "(cn:caseExactMatch:=x)"}), vec![("filter", "selection_invalid")]),
            (json!({"properties": {"keep": ["a"], "strip": ["b"]}}), vec![("properties", "model_type")]),
            (json!({"properties": {}}), vec![("properties", "model_type")]),
            (json!({"properties": {"keep": "a"}}), vec![("properties", "model_type")]),
            (json!({"properties": {"keep": [1]}}), vec![("properties", "model_type")]),
        ] {
            let problems = problems.into_iter().map(|(place, kind)| (place.to_owned(), kind)).collect();
            assert_eq!(parsed(&bad), Err(problems), "{bad}");
        }
    }
}
