//! Pushes that are killed after each of their requests.

use super::{Case, corpus};
use crate::util::qdrant::Qdrant;

impl Case {
    /// Kills a push after each of its requests in turn, runs it again, and expects the collection of a push without a fault.
    /// `prepare` fills the engine before.
    fn is_completed_after_each_request(&self, more: &[&str], prepare: impl Fn(&Qdrant)) {
        let args = |qdrant: &Qdrant| {
            let at = ["--to", "qdrant", "--url", qdrant.address(), "--collection", "docs", "--no-verify"];
            let args = [&["push-index", "docs.index"], &at[..], &["--batch-bytes", "5kB", "--concurrency", "1"], more];
            args.concat().into_iter().map(str::to_owned).collect::<Vec<String>>()
        };
        let push = |qdrant: &Qdrant| self.run(&args(qdrant).iter().map(String::as_str).collect::<Vec<_>>());
        let undisturbed = Qdrant::start();
        prepare(&undisturbed);
        push(&undisturbed).done();
        let mut killed = 0;
        for handled in 1.. {
            let qdrant = Qdrant::start();
            prepare(&qdrant);
            qdrant.http.fall_silent_after(handled);
            let args = args(&qdrant);
            let child = self.place.command(&args.iter().map(String::as_str).collect::<Vec<_>>()).spawn().unwrap();
            if !qdrant.http.kill_when_silent(child) {
                break;
            }
            push(&qdrant).done();
            assert_eq!(qdrant.content(), undisturbed.content(), "killed after request {handled}");
            killed += 1;
        }
        assert!(killed > 10, "{killed} requests");
    }
}

#[test]
fn a_push_is_completed_after_any_request() {
    let case = Case::new();
    case.index(&corpus(0..20));
    case.is_completed_after_each_request(&[], |_| {});
}

#[test]
fn a_synchronization_is_completed_after_any_request() {
    let case = Case::new();
    case.index(&corpus(0..20));
    case.place.copy(&case.place.path("docs.index"), "before.index");
    case.index(&corpus(8..28).replace("nordlyset", "hovedstaden"));
    case.is_completed_after_each_request(&["--sync"], |qdrant| {
        let at = ["--to", "qdrant", "--url", qdrant.address(), "--collection", "docs", "--no-verify"];
        case.run(&[&["push-index", "before.index"], &at[..]].concat()).done();
    });
}

#[test]
fn a_replacement_is_completed_after_any_request() {
    let case = Case::new();
    case.index(&corpus(0..20));
    case.place.copy(&case.place.path("docs.index"), "before.index");
    case.index(&corpus(8..28));
    case.is_completed_after_each_request(&["--overwrite"], |qdrant| {
        let at = ["--to", "qdrant", "--url", qdrant.address(), "--collection", "docs", "--no-verify"];
        case.run(&[&["push-index", "before.index"], &at[..]].concat()).done();
    });
}
