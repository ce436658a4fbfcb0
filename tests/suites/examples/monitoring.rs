//! What `prometheus/` and `grafana/` have for those who watch, tried by Prometheus' own tool.

use std::fs;

use crate::{lab::Lab, site::path, tests};

/// Tests of `prometheus/alerts.yml`.
pub const ALERTS: &[crate::Test] = tests![the_rules_are_valid];

/// Of `prometheus/alerts-test.yml`.
pub const ALERTS_TEST: &[crate::Test] = tests![each_alert_fires_when_it_should];

/// Of `prometheus/scrape.yml`.
pub const SCRAPE: &[crate::Test] = tests![prometheus_takes_it];

/// Of `grafana/convey.json`.
pub const GRAFANA: &[crate::Test] = tests![every_panel_asks_prometheus_something_that_it_understands];

fn promtool(arguments: &str) {
    let lab = Lab::new("promtool");
    lab.host("monitor").run(&format!(
        "cd {} && promtool {arguments}",
        path("prometheus").display()
    ));
}

fn the_rules_are_valid() {
    promtool("check rules alerts.yml");
}

fn each_alert_fires_when_it_should() {
    promtool("test rules alerts-test.yml");
}

fn prometheus_takes_it() {
    promtool("check config scrape.yml");
}

fn every_panel_asks_prometheus_something_that_it_understands() {
    let text = fs::read_to_string(path("grafana/convey.json")).expect("the dashboard");
    let dashboard: serde_json::Value = serde_json::from_str(&text).expect("JSON");
    let panels = dashboard["panels"].as_array().expect("panels");
    let mut rules = "groups: [{ name: panels, rules: [\n".to_owned();
    let mut asked = 0;
    for panel in panels.iter().filter(|panel| panel["type"] != "row") {
        let targets = panel["targets"].as_array().expect("targets");
        assert!(!targets.is_empty(), "{}", panel["title"]);
        for target in targets {
            let expression = target["expr"].as_str().expect("an expression");
            let filled = expression
                .replace("$__rate_interval", "1m")
                .replace("$instance", ".*")
                .replace("$frontend", ".*")
                .replace("$backend", ".*");
            assert!(!filled.contains('$'), "{filled}");
            asked += 1;
            rules.push_str(&format!(
                "{{ record: \"panel:{asked}\", expr: {} }},\n",
                serde_json::json!(filled)
            ));
        }
    }
    rules.push_str("] }]\n");
    assert!(asked > 20, "{asked}");
    let lab = Lab::new("grafana");
    let host = lab.host("monitor");
    let file = host.path("rules.yml");
    fs::write(&file, rules).expect("a file");
    host.run(&format!("promtool check rules {}", file.display()));
}
