//! Completions and manual pages.

use super::*;

#[test]
fn completions_of_bash_complete_commands_flags_and_values() {
    let place = setup();
    place.write("splade.bash", place.ok(&["completions", "bash"]));
    for (words, expected) in [
        (&["splade", "mer"][..], "merge"),
        (&["splade", "encode", "--sha"], "--shard"),
        (&["splade", "encode", "--role", "doc"], "document"),
        (&["splade", "search", "--mode", "bm"], "bm25"),
    ] {
        let last = words.len() - 1;
        let script = format!(
            "source splade.bash; COMP_WORDS=({}); COMP_CWORD={last}; _splade splade '{}' '{}'; printf '%s\\n' \"${{COMPREPLY[@]}}\"",
            words.join(" "),
            words[last],
            words[last - 1]
        );
        let output = Command::new("bash").args(["-c", &script]).current_dir(place.path("")).output().unwrap();
        let found = String::from_utf8(output.stdout).unwrap();
        assert_eq!(found.trim(), expected, "{words:?}: {}", String::from_utf8_lossy(&output.stderr));
    }
    for shell in ["zsh", "fish", "elvish", "powershell"] {
        assert!(place.ok(&["completions", shell]).contains("eval-mteb"), "{shell}");
    }
    place.run(&["completions", "tcsh"]).fails(2, "'tcsh'", "'zsh'");
}

#[test]
fn every_command_has_a_page_of_the_manual() {
    let place = setup();
    let written = place.ok(&["man", "--output", "man1"]);
    assert_eq!(written.lines().count(), util::COMMANDS.len() + 1);
    for command in util::COMMANDS {
        let page = place.read(&format!("man1/splade-{command}.1"));
        assert_eq!(page, place.ok(&["man", command]));
        assert!(page.contains("Example"), "{page}");
    }
    assert_eq!(place.read("man1/splade.1"), place.ok(&["man"]));
    place.run(&["man", "--output", "man1"]).fails(2, "man1/splade.1: exists already", "--overwrite");
    place.ok(&["man", "--output", "man1", "--overwrite"]);
    place.run(&["man", "help"]).fails(2, "help: no command of splade", "splade --help");
}

#[test]
#[ignore = "needs mandoc (Debian: mandoc)"]
fn pages_of_the_manual_are_sound() {
    let place = setup();
    for page in place.ok(&["man", "--output", "man1"]).lines() {
        let lint =
            Command::new("mandoc").args(["-T", "lint", "-W", "error", page]).current_dir(place.path("")).output();
        let lint = lint.expect("mandoc is not installed");
        assert!(lint.status.success(), "{page}: {}", String::from_utf8_lossy(&lint.stdout));
    }
}
