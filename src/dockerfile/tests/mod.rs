//! What is read from a text of instructions, and what they ask for. Expectations are the Dockerfile
//! reference's, whose section a table names; where it is silent, they are what `BuildKit` does.

mod actions;
mod history;
mod hostile;
mod syntax;
mod words;
mod wrong;

use super::*;

/// The one instruction of a text.
fn one(text: &str) -> Instruction {
    let mut instructions = good(text);
    assert_eq!(instructions.len(), 1, "{text}: {instructions:?}");
    instructions.remove(0)
}

fn good(text: &str) -> Vec<Instruction> {
    match parse(text) {
        Ok(instructions) => instructions,
        Err(errors) => panic!("{text}\nis refused: {}", bad_lines(&errors)),
    }
}

fn bad(text: &str) -> String {
    match parse(text) {
        Ok(instructions) => panic!("{text}\nis taken for {instructions:?}"),
        Err(errors) => bad_lines(&errors),
    }
}

fn bad_lines(errors: &[SyntaxError]) -> String {
    let lines = errors.iter().map(|error| match &error.hint {
        Some(hint) => format!("{error} ({}) -- {hint}", error.width),
        None => format!("{error} ({})", error.width),
    });
    lines.collect::<Vec<_>>().join("\n")
}

fn strings(words: &[&str]) -> Vec<String> {
    words.iter().map(|&word| word.to_owned()).collect()
}

fn pairs(pairs: &[(&str, &str)]) -> Vec<(String, String)> {
    let owned = |(name, value): &(&str, &str)| ((*name).to_owned(), (*value).to_owned());
    pairs.iter().map(owned).collect()
}

/// A base with a little of everything.
fn base() -> Config {
    Config {
        env: pairs(&[("PATH", "/bin"), ("LANG", "C")]),
        working_dir: "/srv".to_owned(),
        entrypoint: strings(&["/entry"]),
        cmd: strings(&["serve"]),
        ..Config::default()
    }
}

/// All instructions of a text upon the base: the state at the end, and what each gave.
fn run(text: &str) -> (State, Vec<Applied>) {
    let mut state = State::new(base(), pairs(&[("TARGETARCH", "amd64")]));
    let apply = |instruction: &Instruction| match state.apply(instruction) {
        Ok(applied) => applied,
        Err(error) => panic!("{text}: {error}: {}", error.problem),
    };
    let applied = good(text).iter().map(apply).collect();
    (state, applied)
}

/// What the last instruction of a text asks for.
fn action(text: &str) -> Action {
    run(text).1.pop().expect("there is one").action
}

/// What keeps an instruction of a text from being evaluated.
fn problem(text: &str) -> String {
    let mut state = State::new(base(), []);
    let instructions = good(text);
    for instruction in &instructions {
        if let Err(error) = state.apply(instruction) {
            let hint = error.hint().unwrap_or_default();
            return format!("{}: {error}: {} -- {hint}", error.line, error.problem);
        }
    }
    panic!("{text} is evaluated")
}
