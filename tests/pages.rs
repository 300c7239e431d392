//! The pages that the program writes, shown by a browser: wide and narrow, light, dark and printed.
#![cfg(feature = "train")]

mod util;

use std::process::Command;

use serde_json::Value;
#[cfg(all(feature = "serve", unix))]
use util::server::Server;
use util::{Place, fixture, ours, setup};

/// Shows a page in frames of two widths and writes what a reader would notice into the document. A page with a visit of its own is
/// looked at when its promise `finished` is fulfilled.
const MEASURE: &str = r#"<!doctype html><meta charset="utf-8"><pre id="found"></pre><script>
const page = PAGE;
const channels = text => (text.match(/[\d.]+/g) || []).map(Number);
const luminance = text => {
  const part = channels(text).slice(0, 3).map(c => c / 255).map(c => c <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4);
  return 0.2126 * part[0] + 0.7152 * part[1] + 0.0722 * part[2];
};
const backdrop = (element, view) => {
  for (let at = element; at; at = at.parentElement) {
    const colour = view.getComputedStyle(at).backgroundColor, part = channels(colour);
    if (part.length == 3 || part[3] == 1) return colour;
  }
  return null;
};
const show = width => new Promise(done => {
  const frame = document.createElement('iframe');
  frame.width = width; frame.height = 800; frame.srcdoc = page;
  frame.onload = async () => {
    const view = frame.contentWindow, root = frame.contentDocument;
    await view.finished;
    const texts = [...root.body.querySelectorAll('*')].filter(element => !element.closest('svg') &&
      [...element.childNodes].some(node => node.nodeType == 3 && node.data.trim()) && element.getClientRects().length);
    const contrasts = texts.map(element => {
      const over = luminance(view.getComputedStyle(element).color);
      const under = luminance(backdrop(element, view) || 'rgb(255, 255, 255)');
      return [(Math.max(over, under) + 0.05) / (Math.min(over, under) + 0.05), element.outerHTML.slice(0, 120)];
    });
    const worst = contrasts.sort((a, b) => a[0] - b[0])[0] || [0, ''];
    done({ width, wide: root.documentElement.scrollWidth - root.documentElement.clientWidth, texts: texts.length,
      contrast: worst[0], faintest: worst[1], dark: luminance(backdrop(root.body, view) || 'rgb(255, 255, 255)') < 0.2,
      loaded: view.performance.getEntriesByType('resource').length, language: root.documentElement.lang });
  };
  document.body.append(frame);
});
onload = async () => {
  const found = [await show(360), await show(1200)];
  document.querySelectorAll('iframe').forEach(frame => frame.remove());
  document.getElementById('found').textContent = JSON.stringify(found);
};
</script>"#;

/// Runs Chromium without a window on a file of the place.
fn chromium(place: &Place, arguments: &[&str], file: &str) -> String {
    browse(place, arguments, &format!("file://{}", place.path(file).display()))
}

/// Runs Chromium without a window on an address.
fn browse(place: &Place, arguments: &[&str], address: &str) -> String {
    let program = std::env::var("SPLADE_CHROMIUM").unwrap_or_else(|_| "chromium".to_owned());
    let ran = Command::new(program)
        .args(["--headless", "--no-sandbox", "--disable-gpu", "--virtual-time-budget=20000"])
        .arg(format!("--user-data-dir={}", place.path("browser").display()))
        .args(arguments)
        .arg(address)
        .output()
        .unwrap();
    assert!(ran.status.success(), "{}", String::from_utf8_lossy(&ran.stderr));
    String::from_utf8(ran.stdout).unwrap()
}

/// Checks a page as a reader sees it: nothing loaded, no sideways scrolling, text that stands out from what is behind it.
fn check(place: &Place, file: &str) {
    let page = serde_json::to_string(&place.read(file)).unwrap().replace("</script", "<\\/script");
    place.write("measure.html", MEASURE.replace("PAGE", &page));
    for (scheme, dark) in [("0", true), ("1", false)] {
        let scheme = format!("--blink-settings=preferredColorScheme={scheme}");
        let shown = chromium(place, &["--dump-dom", &scheme], "measure.html");
        let found = shown.split_once("<pre id=\"found\">").unwrap().1.split_once("</pre>").unwrap().0;
        let found = found.replace("&lt;", "<").replace("&gt;", ">").replace("&amp;", "&");
        let found: Value = serde_json::from_str(&found).unwrap_or_else(|error| panic!("{error}: {shown}"));
        assert_eq!(found.as_array().map(Vec::len), Some(2));
        for frame in found.as_array().unwrap() {
            assert!(frame["texts"].as_u64().unwrap() > 20, "{file}: {frame}");
            assert_eq!((&frame["wide"], &frame["loaded"]), (&0.into(), &0.into()), "{file}: {frame}");
            assert_eq!(frame["dark"], dark, "{file}: {frame}");
            // WCAG 2.2, 1.4.3: 4.5 for text
            assert!(frame["contrast"].as_f64().unwrap() >= 4.5, "{file}: {frame}");
            assert_ne!(frame["language"], "", "{file}");
        }
    }
    let pdf = place.path("printed.pdf");
    chromium(place, &[&format!("--print-to-pdf={}", pdf.display())], file);
    assert!(std::fs::read(&pdf).unwrap().starts_with(b"%PDF-"));
}

#[test]
#[ignore = "needs Chromium, found as `chromium` or named by SPLADE_CHROMIUM; \
            run with `cargo test --workspace --test pages -- --ignored`"]
fn pages_are_readable_on_a_phone_in_the_dark_and_in_print() {
    let place = setup();
    place.copy(&fixture("inference-free/model"), "model");
    place.copy(&ours("data/toy"), "toy");
    place.ok(&["eval-mteb", "model", "--data", "toy", "--modes", "bm25", "--save-runs", "--output-dir", "old"]);
    let baseline = "old/results/local__model/no_revision_available/experiments/bm25";
    let eval = ["eval-mteb", "model", "--data", "toy", "--modes", "sparse,bm25,hybrid"];
    place.ok(&[&eval[..], &["--overwrite", "--baseline", baseline, "--report", "report.html"]].concat());
    check(&place, "report.html");
    place.ok(&["index", "model", "--input", "toy/corpus.jsonl", "--index", "toy.index", "--language", "english"]);
    let question = "which city is the capital of Norway";
    place.ok(&["search", "--index", "toy.index", "--mode", "hybrid", "--explain", "--html", "hits.html", question]);
    check(&place, "hits.html");
}

/// A page of the server without requests: `fetch` gives the answers that the server gave before. The rest of a visit, as a reader
/// would make it, follows the page's script.
#[cfg(all(feature = "serve", unix))]
const STUB: &str = "<script>const answers = ANSWERS;
window.fetch = async path => ({ ok: true, json: async () => answers[path] });
history.replaceState = () => {};</script>";
#[cfg(all(feature = "serve", unix))]
const VISIT: &str = "<script>const later = () => new Promise(done => setTimeout(done));
window.finished = (async () => {
  await later();
  document.getElementById('query').value = 'QUERY';
  document.getElementById('search').requestSubmit();
  await later(); await later();
  document.querySelectorAll('.title')[0].click();
  document.querySelectorAll('.facts input')[0].click();
  document.querySelectorAll('.facts input')[1].click();
})();
</script>";

#[cfg(all(feature = "serve", unix))]
fn server() -> (Place, Server) {
    let place = setup();
    place.copy(&fixture("inference-free/model"), "model");
    place.copy(&ours("data/toy"), "toy");
    let awkward = r#"{"_id": "<b>x</b>", "title": "<img src=x onerror=\"document.title='broken'\">", "text": "hovedstaden </script><script>document.title='broken'</script> i Norge", "theme": "<i>by</i>"}"#;
    place.write("corpus.jsonl", format!("{}{awkward}\n", place.read("toy/corpus.jsonl")));
    place.ok(&["index", "model", "--input", "corpus.jsonl", "--index", "toy.index", "--language", "norwegian"]);
    let server = Server::start(&place, &["--index", "toy.index"]);
    (place, server)
}

#[test]
#[cfg(all(feature = "serve", unix))]
#[ignore = "needs Chromium, found as `chromium` or named by SPLADE_CHROMIUM; \
            run with `cargo test --workspace --test pages -- --ignored`"]
fn the_page_of_the_server_is_readable() {
    let (place, server) = server();
    let page = server.get("/").body;
    let query = "hovedstaden i Norge";
    let body = serde_json::json!({"query": query, "mode": "hybrid", "k": 10, "explain": true, "snippets": 2, "count_by": ["theme", "year"]});
    let answers = serde_json::json!({
        "/v1/indexes": server.get("/v1/indexes").ok(),
        "/v1/search": server.post("/v1/search", &body).ok(),
    });
    let answers = answers.to_string().replace("</", "<\\/");
    let page = page.replacen("<script>", &format!("{}<script>", STUB.replace("ANSWERS", &answers)), 1);
    place.write("served.html", page.replace("</body>", &format!("{}</body>", VISIT.replace("QUERY", query))));
    check(&place, "served.html");
}

#[test]
#[cfg(all(feature = "serve", unix))]
#[ignore = "needs Chromium, found as `chromium` or named by SPLADE_CHROMIUM; \
            run with `cargo test --workspace --test pages -- --ignored`"]
fn the_page_of_the_server_searches_under_its_policy() {
    let (place, server) = server();
    let address = |query: &str| format!("http://{}/?{query}", server.address);
    let shown = browse(&place, &["--dump-dom"], &address("q=hovedstaden%20i%20Norge&mode=bm25"));
    assert!(shown.matches("class=\"hit\"").count() > 1, "{shown}");
    assert!(shown.contains("hits in ") && shown.contains("<mark>"), "{shown}");
    // a text of a document is never markup
    assert!(shown.contains("&lt;img src=x onerror=") && !shown.contains("<title>broken"), "{shown}");
    let filtered = browse(&place, &["--dump-dom"], &address("q=hovedstaden&value=theme:by"));
    assert!(filtered.contains("Remove theme by"), "{filtered}");
    let refused = browse(&place, &["--dump-dom"], &address("q=hovedstaden&filter=colour:red"));
    assert!(refused.contains("filter: ") && refused.contains("colour"), "{refused}");
    // an inline script that is not the server's own does not run
    let reply = server.get("/");
    assert!(reply.head.contains("content-security-policy: default-src 'none'"), "{}", reply.head);
}
