//! What is told of images, volumes, networks and commands in containers.

use serde_json::Value;

use super::detached::POLITE;
use super::fixture::Ready;
use super::networks::Net;

/// What was told so far, as far as it fits.
fn told(text: &str) -> Vec<Value> {
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

fn past<'a>(filters: &[&'a str]) -> Vec<&'a str> {
    let filters = filters.iter().flat_map(|filter| ["--filter", filter]);
    ["events", "--until", "0s", "--format", "json"].into_iter().chain(filters).collect()
}

/// Type, action and actor's ID.
fn outline(events: &[Value]) -> Vec<(String, String, String)> {
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    events.iter().map(|event| (text(&event["Type"]), text(&event["Action"]), text(&event["Actor"]["ID"]))).collect()
}

#[test]
fn of_an_image_its_coming_naming_and_going_are_told() {
    let Some(ready) = Ready::new() else { return };
    let name = ready.image.strip_suffix(":1").unwrap();
    let (second, third) = (format!("{name}:2"), format!("{name}:3"));
    let inspected: Value = serde_json::from_str(&ready.rbox(&["inspect", &ready.image])).unwrap();
    let id = inspected[0]["Id"].as_str().unwrap();
    ready.rbox(&["tag", &ready.image, &second]);
    ready.user.succeed("rpush", &["-q", &second]);
    ready.rbox(&["rmi", &second]);
    ready.rbox(&["rmi", &ready.image]);
    let events = told(&ready.rbox(&past(&["type=image"])));
    let expected = [
        // By the fixture, which pushes from elsewhere.
        ("push", &*ready.image, name),
        ("pull", &ready.image, name),
        ("tag", id, &second),
        ("push", &second, name),
        ("untag", id, id),
        ("untag", id, id),
        ("delete", id, id),
    ];
    for (event, (action, id, name)) in events.iter().zip(expected) {
        assert_eq!(
            (event["Action"].as_str(), event["status"].as_str(), event["id"].as_str()),
            (Some(action), Some(action), Some(id))
        );
        assert_eq!((event["Actor"]["ID"].as_str(), event["Actor"]["Attributes"]["name"].as_str()), (Some(id), Some(name)));
        assert_eq!(event.get("from"), None);
    }
    assert_eq!(events.len(), expected.len());
    // By its name, with and without a tag.
    assert_eq!(told(&ready.rbox(&past(&["event=tag", &format!("image={second}")]))).len(), 1);
    assert_eq!(told(&ready.rbox(&past(&[&format!("image={name}")]))).len(), 4);
    assert_eq!(told(&ready.rbox(&past(&[&format!("image={id}")]))).len(), 4);
    assert_eq!(ready.rbox(&past(&[&format!("image={third}")])), "");
    // What comes to nothing is not told.
    ready.user.fail("rbox", &["tag", &ready.image, &second]);
    ready.user.fail("rbox", &["rmi", &ready.image]);
    assert_eq!(told(&ready.rbox(&past(&["type=image"]))).len(), expected.len());
}

#[test]
fn a_volume_is_mounted_and_unmounted_and_a_command_in_a_container_has_an_end() {
    let Some(ready) = Ready::new() else { return };
    ready.rbox(&["volume", "create", "data"]);
    let id = ready.detach(&["--name", "busy", "-v", "data:/data:ro"], POLITE);
    ready.logged(&id, "up");
    let output = ready.user.output("rbox", &["exec", "busy", "sh", "-c", "exit 7"]);
    assert_eq!(output.status.code(), Some(7));
    ready.user.fail("rbox", &["exec", "busy", "/nothing"]);
    ready.rbox(&["exec", "-d", "busy", "true"]);
    ready.rbox(&["stop", "busy"]);
    ready.rbox(&["rm", "busy"]);
    ready.rbox(&["volume", "rm", "data"]);
    let volumes = told(&ready.rbox(&past(&["volume=data"])));
    assert_eq!(
        outline(&volumes),
        ["create", "mount", "unmount", "destroy"].map(|action| ("volume".into(), action.into(), "data".into()))
    );
    let mount = &volumes[1]["Actor"]["Attributes"];
    assert_eq!(
        (mount["container"].as_str(), mount["destination"].as_str(), mount["read/write"].as_str()),
        (Some(&*id), Some("/data"), Some("false"))
    );
    assert!(volumes[0].get("status").is_none() && volumes[0]["Actor"]["Attributes"]["driver"] == "local");
    let of = |action: &str| told(&ready.rbox(&past(&["container=busy", &format!("event={action}")])));
    assert_eq!(of("exec_create")[0]["Action"], "exec_create: sh -c exit 7");
    assert_eq!((of("exec_create").len(), of("exec_start").len()), (3, 3));
    let ends = of("exec_die");
    let codes: Vec<_> = ends.iter().map(|end| end["Actor"]["Attributes"]["exitCode"].as_str().unwrap()).collect();
    assert_eq!(codes, ["7", "127"], "nobody waits for one that is detached");
    let exec = |event: &Value| event["Actor"]["Attributes"]["execID"].as_str().unwrap().to_owned();
    assert_eq!((exec(&ends[0]), exec(&ends[0]).len()), (exec(&of("exec_start")[0]), 64));
}

#[test]
fn of_a_network_it_is_told_who_comes_and_goes() {
    let Some(net) = Net::new() else { return };
    net.rbox(&["network", "create", "front"]);
    net.rbox(&["network", "create", "back"]);
    let run = ["run", "-d", "--name", "web", "--network", "front", net.image(), "sh", "-c", POLITE];
    let id = net.rbox(&run).trim_end().to_owned();
    net.rbox(&["network", "connect", "back", "web"]);
    net.rbox(&["network", "disconnect", "back", "web"]);
    net.rbox(&["stop", "web"]);
    net.rbox(&["rm", "web"]);
    net.rbox(&["network", "rm", "front", "back"]);
    for name in ["front", "back"] {
        let filter = format!("network={name}");
        let events = told(&net.rbox(&past(&[&filter])));
        let actions: Vec<_> = events.iter().map(|event| event["Action"].as_str().unwrap()).collect();
        assert_eq!(actions, ["create", "connect", "disconnect", "destroy"], "{name}");
        for event in &events {
            let attributes = &event["Actor"]["Attributes"];
            assert_eq!((attributes["name"].as_str(), attributes["type"].as_str()), (Some(name), Some("bridge")));
            assert_eq!(event["Actor"]["ID"], events[0]["Actor"]["ID"]);
        }
        assert_eq!(events[1]["Actor"]["Attributes"]["container"], *id);
    }
    // The default one is made with its first container.
    let run = ["run", "-d", "--rm", net.image(), "true"];
    net.rbox(&run);
    assert_eq!(told(&net.rbox(&past(&["network=bridge", "event=create"]))).len(), 1);
}
