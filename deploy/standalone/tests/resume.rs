//! Coming back: what was missed comes with the login.

mod common;

use common::{Server, data_dir};
use serde_json::{Value, json};

/// Messages of others while a client is away come back with its login, whole or not at all, also by the resume token
/// alone and after a restart of the server.
#[test]
fn a_client_that_was_away_resumes() {
    let data = data_dir();
    let server =
        Server::start(data.path(), &["--messages-per-second", "10000", "--message-burst", "10000"]);
    let (alice, bob) = (server.user("alice"), server.user("bob"));
    let login = |server: &Server, payload: Value| {
        let mut client = server.socket("/ws");
        let answer = client.ask(&json!({"cmd":1,"payload":payload}));
        (client, answer)
    };
    let (mut bob, _) = login(&server, json!({"token": bob["access_token"]}));
    for (id, members) in [("g1", json!(["alice"])), ("g2", json!(["alice"])), ("g3", json!([]))] {
        let group =
            json!({"cmd":6,"payload":{"type":"group","conversation_id":id,"members":members}});
        assert_eq!(bob.ask(&group)["code"], 0);
    }
    let (client, welcome) = login(&server, json!({"token": alice["access_token"]}));
    let token = welcome["payload"]["resume_token"].as_str().unwrap().to_owned();
    drop(client);
    for n in 1..=5 {
        assert_eq!(bob.send("g1", &format!("m{n}"), &format!("text {n}"))["seq"], n);
    }
    for n in 1..=1000 {
        assert_eq!(bob.send("g2", &format!("m{n}"), "x")["seq"], n);
    }
    drop((bob, server));

    let server = Server::start(data.path(), &[]);
    let points = json!([
        {"conversation_id":"g1","seq":3}, {"conversation_id":"g2","seq":1}, {"conversation_id":"g1","seq":5},
        {"conversation_id":"g1","seq":6}, {"conversation_id":"g3","seq":0}, {"conversation_id":"none","seq":0},
    ]);
    let (mut client, welcome) = login(&server, json!({"resume_token": token, "resume": points}));
    assert_eq!(welcome["payload"]["user_id"], alice["user_id"]);
    let mut resumed = || {
        let frame = client.next().unwrap();
        assert_eq!(frame["cmd"], 14, "{frame}");
        let items = frame["payload"].as_array().unwrap();
        let seqs: Vec<u64> = items.iter().map(|item| item["seq"].as_u64().unwrap()).collect();
        let id = frame["conversation_id"].as_str().unwrap().to_owned();
        (id, frame["recovered"] == true, frame["max_seq"].as_u64().unwrap(), seqs)
    };
    assert_eq!(resumed(), ("g1".into(), true, 5, vec![4, 5]));
    assert_eq!(resumed(), ("g2".into(), false, 1000, vec![]), "999 and the two are more than 1000");
    assert_eq!(resumed(), ("g1".into(), true, 5, vec![]));
    assert_eq!(resumed(), ("g1".into(), false, 5, vec![]), "the client knows more than the server");
    assert_eq!(resumed(), ("g3".into(), false, 0, vec![]), "not a member");
    assert_eq!(resumed(), ("none".into(), false, 0, vec![]));

    let many: Vec<Value> = (0..101).map(|_| json!({"conversation_id":"g1","seq":0})).collect();
    let (_, refused) = login(&server, json!({"resume_token": token, "resume": many}));
    assert!(refused["error"]["detail"].as_str().unwrap().contains("100"), "{refused}");
    let (mut client, refused) = login(&server, json!({"resume_token": format!("{token}A")}));
    assert_eq!(refused["error"]["name"], "UNAUTHENTICATED");
    assert_eq!(client.close_code(), 4200);
    let bearer = alice["access_token"].as_str().unwrap();
    assert_eq!(server.rest("POST", "/api/v1/logout", Some(bearer), None).status, 204);
    let (_, refused) = login(&server, json!({"resume_token": token}));
    assert_eq!(refused["error"]["name"], "UNAUTHENTICATED", "logged out everywhere");
}
