//! `settings.md`: all flags, as clap has them.

use clap::{Arg, Command, CommandFactory};

use crate::settings::Cli;

/// What a row of the table says.
fn row(arg: &Arg) -> Vec<String> {
    let code = |text: &str| format!("`{text}`");
    let name = match arg.get_long() {
        Some(flag) => format!("--{flag}"),
        None => arg.get_value_names().map_or_else(String::new, |names| names.concat()),
    };
    let variable = arg.get_env().map_or_else(String::new, |name| code(&name.to_string_lossy()));
    let default = match arg.get_default_values() {
        [] if arg.is_required_set() => "required".to_owned(),
        [] => String::new(),
        values => code(&values.iter().map(|value| value.to_string_lossy()).collect::<Vec<_>>().join(" ")),
    };
    let mut help = arg.get_long_help().or(arg.get_help()).map_or_else(String::new, ToString::to_string);
    let words: Vec<String> = arg.get_possible_values().iter().map(|value| code(value.get_name())).collect();
    // All words for yes and no say less than the default does.
    if arg.get_action().takes_values() && !words.is_empty() && !words.contains(&code("yes")) {
        help = format!("{} ({})", help.trim_end_matches('.'), words.join(", "));
    }
    vec![code(&name), variable, default, help.trim_end_matches('.').to_owned()]
}

fn rows(command: &Command) -> Vec<Vec<String>> {
    let shown = command.get_arguments().filter(|arg| !arg.is_hide_set() && !arg.is_global_set());
    shown.filter(|arg| !["help", "version"].contains(&arg.get_id().as_str())).map(row).collect()
}

/// Settings that the same commands have are one table.
#[test]
fn the_reference_of_settings_is_that_of_the_code() {
    let cli = Cli::command();
    let global: Vec<_> = cli.get_arguments().filter(|arg| arg.is_global_set()).map(row).collect();
    let commands: Vec<&Command> = cli.get_subcommands().filter(|command| !command.is_hide_set()).collect();
    let mut groups: Vec<(Vec<&str>, Vec<Vec<String>>)> = Vec::new();
    let mut seen = Vec::new();
    for row in commands.iter().flat_map(|command| rows(command)) {
        if seen.contains(&row) {
            continue;
        }
        let users = commands.iter().filter(|command| rows(command).contains(&row));
        let users: Vec<&str> = users.map(|command| command.get_name()).collect();
        match groups.iter_mut().find(|(of, _)| *of == users) {
            Some((_, rows)) => rows.push(row.clone()),
            None => groups.push((users, vec![row.clone()])),
        }
        seen.push(row);
    }
    let heads = ["flag", "variable", "default", "meaning"];
    let about = commands.iter().map(|command| {
        let about =
            command.get_long_about().or(command.get_about()).map_or_else(String::new, ToString::to_string);
        vec![format!("`headstart {}`", command.get_name()), about]
    });
    let mut made = format!("## Commands\n\n{}", reference::table(&["command", "what it does"], about));
    made += &format!("\n## All commands\n\n{}", reference::table(&heads, global));
    for (users, rows) in groups {
        let users: Vec<String> = users.iter().map(|name| format!("`{name}`")).collect();
        made += &format!("\n## {}\n\n{}", users.join(", "), reference::table(&heads, rows));
    }
    reference::keep("settings.md", "settings", &made);
}
