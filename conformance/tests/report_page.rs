//! The page in a browser: nothing is fetched, nothing runs, nothing is wider than a telephone, and it
//! is readable in the dark and on paper.
//!
//! With `LONGSHORE_SCREENSHOTS=DIR` the pictures are left there to be looked at.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod devtools;
#[path = "../../runtime/tests/needs/mod.rs"]
mod needs;
mod support;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use devtools::Browser;
use serde_json::{Value, json};
use support::Fault;

const TELEPHONE: u32 = 360;
const DESK: u32 = 1200;

fn rconform(arguments: &[&str]) -> Option<i32> {
    Command::new(env!("CARGO_BIN_EXE_rconform")).args(arguments).output().unwrap().status.code()
}

/// What a hostile registry could have answered.
const HOSTILE: &str =
    "</pre></details><script>window.taken = 1</script><img src=http://127.0.0.1:9/x onerror='window.taken = 1'>";

/// A page of a real report with a hostile exchange in it, and of two loads; the exchange as it was saved.
fn page(directory: &Path) -> (PathBuf, String) {
    let (address, state) = support::start(Some(Fault::UnsortedTags));
    let [spec, load, page] = ["spec.json", "load.json", "page.html"].map(|name| directory.join(name));
    let [spec_name, load_name, page_name] = [&spec, &load, &page].map(|path| path.to_str().unwrap());
    assert_eq!(rconform(&["spec", &format!("http://{address}"), "--output", spec_name]), Some(1));
    assert_eq!(state.lock().unwrap().len(), 0);
    let mut report: Value = serde_json::from_slice(&fs::read(&spec).unwrap()).unwrap();
    let rows = report["requirements"].as_array_mut().unwrap();
    let failure = rows.iter_mut().find(|row| row["verdict"] == "fail").unwrap();
    let exchange = format!("{}{HOSTILE}{}", failure["exchange"].as_str().unwrap(), "w".repeat(500));
    failure["exchange"] = exchange.clone().into();
    rows[0]["verdict"] = "not-offered".into();
    rows[0]["detail"] = format!("it is called {}", "/long".repeat(100)).into();
    fs::write(&spec, report.to_string()).unwrap();
    let points = |f: fn(f64) -> (f64, f64)| (0..50).map(|i| f(f64::from(i))).collect::<Vec<_>>();
    let load_of = |registry: &str, slowness: f64| {
        let distribution = points(|i| (1.0 - 10f64.powf(-i / 12.0), 0.4 + i * i / 90.0));
        let distribution: Vec<_> = distribution.into_iter().map(|(q, ms)| (q, ms * slowness)).collect();
        json!({"registry": registry, "kind": "manifest-get", "connections": 64, "requests": 100_000, "failures": 0, "seconds": 5.0,
            "per_second": 40_000.0 / slowness, "megabytes_per_second": 20.1, "generator_cpu_s": 4.9, "generator_was_the_limit": true,
            "measured_at": "2026-11-25T22:43:30Z", "latency_ms": {"mean": 1.5, "p50": 1.1, "p99": 9.0, "max": 30.0},
            "latency_distribution": distribution, "server": {"cpu_s": 3.0, "peak_bytes": 30_000_000},
            "timeline": points(|i| (i / 10.0, 40_000.0 + 3000.0 * (i / 3.0).sin())).into_iter().map(|(s, n)| (s, n / slowness)).collect::<Vec<_>>()})
    };
    let round = [load_of("http://first.test:5000/", 1.0), load_of("http://second.test:5000/", 3.3)];
    let ratio =
        json!({"name": "requests/s", "first": 40_000, "second": 12_100, "ratio": 0.303, "ratio_min": 0.281, "ratio_max": 0.322});
    fs::write(&load, json!({"rounds": [round], "figures": [ratio]}).to_string()).unwrap();
    assert_eq!(rconform(&["report", spec_name, load_name, "--output", page_name]), Some(0));
    (page, exchange)
}

#[test]
fn the_page_needs_nothing_else_and_is_readable_anywhere() {
    if !needs::installed("chromium") {
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    let (page, exchange) = page(directory.path());
    let mut browser = Browser::start(directory.path());
    for (width, scheme) in [(TELEPHONE, "light"), (TELEPHONE, "dark"), (DESK, "light"), (DESK, "dark")] {
        browser.show(width, scheme, "screen");
        browser.open(&page);
        nothing_was_fetched_and_nothing_ran(&mut browser, &page);
        let wide = browser.evaluate("Math.max(document.documentElement.scrollWidth, document.body.scrollWidth)");
        assert!(wide.as_u64().unwrap() <= width.into(), "{wide} of {width} pixels");
        // The ink of the page on its ground, both as `rgb(r, g, b)`.
        let colors = browser.evaluate("(s => [s.backgroundColor, s.color])(getComputedStyle(document.body))");
        let brightness = |color: &Value| {
            let color = color.as_str().unwrap().trim_start_matches("rgb(").trim_end_matches(')').to_owned();
            color.split(", ").map(|part| part.parse::<u32>().unwrap()).sum::<u32>()
        };
        assert_eq!(brightness(&colors[0]) < brightness(&colors[1]), scheme == "dark", "{colors}");
        keep_picture(&mut browser, &format!("{width}-{scheme}.png"));
    }
    let shown = browser.evaluate("[...document.querySelectorAll('pre')].map(e => e.textContent)");
    assert!(shown.as_array().unwrap().iter().any(|text| *text == exchange.trim_end()), "{shown}");
    the_requirements_can_be_filtered(&mut browser);
    what_is_folded_on_the_screen_is_there_on_paper(&mut browser);
}

fn nothing_was_fetched_and_nothing_ran(browser: &mut Browser, page: &Path) {
    let of = |method: &str| browser.events.iter().filter(|e| e["method"] == method).cloned().collect::<Vec<_>>();
    let requests = of("Network.requestWillBeSent");
    let foreign = |request: &&Value| {
        let url = request["params"]["request"]["url"].as_str().unwrap();
        url != format!("file://{}", page.display()) && !url.starts_with("data:")
    };
    assert!(!requests.is_empty() && requests.iter().find(foreign).is_none(), "{requests:#?}");
    // A policy that was broken, a reference that was not found.
    assert_eq!((of("Log.entryAdded"), of("Runtime.consoleAPICalled")), (vec![], vec![]));
    assert_eq!(browser.evaluate("String(window.taken) + document.images.length + document.scripts.length"), "undefined00");
}

fn the_requirements_can_be_filtered(browser: &mut Browser) {
    let visible = "[...document.querySelectorAll('tbody tr[class]')].filter(e => e.checkVisibility()).map(e => e.className)";
    let all = browser.evaluate(visible);
    assert!(all.as_array().unwrap().len() > 50, "{all}");
    for class in ["fail", "absent", "differs"] {
        let expected: Vec<_> = all.as_array().unwrap().iter().filter(|row| *row == class).cloned().collect();
        assert_eq!(expected.is_empty(), class == "differs", "{class}: {all}");
        browser.evaluate(&format!("document.querySelector('.show-{class}').click()"));
        assert_eq!(browser.evaluate(visible), json!(expected));
        let says_none = browser.evaluate("document.querySelector('.none').checkVisibility()");
        assert_eq!(says_none, expected.is_empty());
    }
    browser.evaluate("document.querySelector('.show-all').click()");
    assert_eq!(browser.evaluate(visible), all);
}

fn what_is_folded_on_the_screen_is_there_on_paper(browser: &mut Browser) {
    let heights =
        "[...document.querySelectorAll('pre')].map(e => e.checkVisibility({contentVisibilityAuto: true}) ? e.offsetHeight : 0)";
    let on_screen = browser.evaluate(heights);
    assert!(on_screen.as_array().unwrap().iter().all(|height| *height == 0), "{on_screen}");
    browser.show(DESK, "dark", "print");
    let on_paper = browser.evaluate(heights);
    assert!(on_paper.as_array().unwrap().iter().all(|height| height.as_u64().unwrap() > 20), "{on_paper}");
    assert_eq!(browser.evaluate("getComputedStyle(document.body).backgroundColor"), "rgb(255, 255, 255)");
    keep_picture(browser, "print.pdf");
}

/// Leaves a picture for a reader who asked for it.
fn keep_picture(browser: &mut Browser, name: &str) {
    let Some(directory) = std::env::var_os("LONGSHORE_SCREENSHOTS") else { return };
    let form = name.rsplit('.').next().unwrap();
    fs::write(Path::new(&directory).join(name), browser.picture(form)).unwrap();
}
