//! `/openapi.json`, and `/docs`: the same for people, as one page that loads nothing from elsewhere.

use axum::{
    extract::State,
    http::StatusCode,
    response::{Html, IntoResponse, Response},
};

use crate::{error::json, openapi, state::Shared};

const HEAD: &str = "<!doctype html><html lang=en><meta charset=utf-8><title>Headstart API</title><style>\
body{font:16px/1.5 system-ui,sans-serif;max-width:60rem;margin:2rem auto;padding:0 1rem}\
h2{font-size:1rem;margin:2rem 0 .3rem;font-family:ui-monospace,monospace}\
td{padding:.1rem 1rem .1rem 0;vertical-align:top}</style><h1>Headstart API</h1>\
<p>For programs: <a href=openapi.json>openapi.json</a>. All requests use HTTP Basic.";

pub(crate) async fn description(State(app): Shared) -> Response {
    json(StatusCode::OK, &openapi::document(&app.config.root_path))
}

pub(crate) async fn page(State(app): Shared) -> Response {
    let document = openapi::document(&app.config.root_path);
    let mut page = HEAD.to_owned();
    for (path, methods) in document["paths"].as_object().into_iter().flatten() {
        for (method, operation) in methods.as_object().into_iter().flatten() {
            let text = |field: &str| escape(operation[field].as_str().unwrap_or_default());
            page += &format!(
                "<h2>{} {}</h2><p>{} <em>{}</em><table>",
                method.to_uppercase(),
                escape(path),
                text("summary"),
                text("description")
            );
            for (status, answer) in operation["responses"].as_object().into_iter().flatten() {
                let meaning = escape(answer["description"].as_str().unwrap_or_default());
                page += &format!("<tr><td>{status}<td>{meaning}");
            }
            page += "</table>";
        }
    }
    Html(page).into_response()
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;")
}
