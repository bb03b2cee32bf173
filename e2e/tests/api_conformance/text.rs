//! Texts: what a text leg finds, compared with BM25 written down again here; phrases,
//! prefixes, misspellings, languages, highlights, filters, and text fused with vectors.

use std::collections::{BTreeMap, BTreeSet};

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use rhumb_e2e::compare::{ids_at, plain};
use rhumb_e2e::data::vector;
use rhumb_e2e::suite::Seen;
use rhumb_e2e::{Suite, seed};
use serde_json::{Value, json};

use crate::{documents, query};

const ROWS: usize = 600;

#[tokio::test]
async fn texts_are_found() {
    let t = Suite::start("text").await;
    let seed = seed();
    eprintln!("seed {seed}");
    let mut rng = StdRng::seed_from_u64(seed);
    for partitions in [1, 3] {
        scores_are_those_of_bm25(&t, &mut rng, partitions).await;
    }
    what_was_written_is_found_at_once(&t).await;
    words_are_understood(&t).await;
    hits_are_highlighted(&t).await;
    text_and_vectors_are_fused(&t, &mut rng).await;
    wrong_queries_are_refused(&t).await;
    t.finish().await;
}

/// Words that no stemmer shortens and no list of stop words has.
fn word(n: usize) -> String {
    format!("w{n}q")
}

/// The common ones often, the rare ones rarely; at most 40 words: longer lengths are rounded.
fn text(rng: &mut StdRng) -> Vec<usize> {
    let length = rng.random_range(1..=40);
    (0..length)
        .map(|_| {
            let most = [4, 30, 200][rng.random_range(0..3)];
            rng.random_range(0..most)
        })
        .collect()
}

fn spoken(words: &[usize]) -> String {
    words.iter().map(|n| word(*n)).collect::<Vec<_>>().join(" ")
}

struct Corpus(Vec<Vec<usize>>);

impl Corpus {
    fn count(&self, row: usize, word: usize) -> f64 {
        self.0[row].iter().filter(|w| **w == word).count() as f64
    }

    fn score(&self, row: usize, words: &[usize]) -> f64 {
        let docs = self.0.len() as f64;
        let average = self.0.iter().map(Vec::len).sum::<usize>() as f64 / docs;
        let length = self.0[row].len() as f64;
        let of = |word: &usize| {
            let found = (0..self.0.len())
                .filter(|row| self.count(*row, *word) > 0.0)
                .count() as f64;
            let idf = (1.0 + (docs - found + 0.5) / (found + 0.5)).ln();
            let tf = self.count(row, *word);
            idf * tf * 2.2 / (tf + 1.2 * (0.25 + 0.75 * length / average))
        };
        words.iter().map(of).sum()
    }

    fn matches(&self, row: usize, words: &[usize], operator: &str) -> bool {
        let has = |word: &usize| self.0[row].contains(word);
        match operator {
            "and" => words.iter().all(has),
            "phrase" => self.0[row].windows(words.len()).any(|window| window == words),
            _ => words.iter().any(has),
        }
    }
}

async fn scores_are_those_of_bm25(t: &Suite, rng: &mut StdRng, partitions: usize) {
    let name = format!("bm25-{partitions}");
    let fields = json!({"gloss": {"type": "text", "language": "english"}, "n": "int"});
    t.create(&name, json!({"fields": fields, "partitions": partitions}))
        .await;
    let corpus = Corpus((0..ROWS).map(|_| text(rng)).collect());
    let row = |id: usize| json!({"id": id, "gloss": spoken(&corpus.0[id]), "n": id % 10});
    let rows: Vec<Value> = (0..ROWS).map(row).collect();
    // Sealed, sealed and merged, fresh; then all sealed; then loaded from the bucket.
    t.write(&name, json!({"upsert": rows[..250]})).await;
    t.client().optimize(&name).await.expect("optimize works");
    t.write(&name, json!({"upsert": rows[250..400]})).await;
    t.client().optimize(&name).await.expect("optimize works");
    t.write(&name, json!({"upsert": rows[400..]})).await;
    for state in ["half fresh", "sealed", "restarted"] {
        match state {
            "sealed" => t.client().optimize(&name).await.expect("optimize works"),
            "restarted" => t.restart().await,
            _ => {}
        }
        for _ in 0..20 {
            let operator = ["or", "and", "phrase"][rng.random_range(0..3)];
            let words: BTreeSet<usize> = match operator {
                "or" => (0..rng.random_range(1..5))
                    .map(|_| rng.random_range(0..60))
                    .collect(),
                _ => (0..2).map(|_| rng.random_range(0..4)).collect(),
            };
            let words: Vec<usize> = words.into_iter().collect();
            let filter = rng.random_bool(0.5).then(|| rng.random_range(1..10));
            let k = [3, 10, 100][rng.random_range(0..3)];
            let expected = expected(&corpus, &words, operator, filter, k);
            let mut body = json!({"text": {"query": spoken(&words), "operator": operator}, "k": k});
            if let Some(below) = filter {
                body["filter"] = json!({"n": {"$lt": below}});
            }
            t.case(format!("{name} {state}: {body}"))
                .post(&query(&name), body)
                .await
                .status(200)
                .holds(|answer| same_ranking(&answer.json(), &expected, operator != "phrase"));
        }
    }
}

/// All that match, best first, `k` of them; a phrase counts as one word of its own.
fn expected(
    corpus: &Corpus,
    words: &[usize],
    operator: &str,
    filter: Option<usize>,
    k: usize,
) -> Vec<(u64, f64)> {
    let rows = (0..corpus.0.len()).filter(|row| filter.is_none_or(|below| row % 10 < below));
    let matching = rows.filter(|row| corpus.matches(*row, words, operator));
    let mut scored: Vec<(u64, f64)> = matching
        .map(|row| (row as u64, corpus.score(row, words)))
        .collect();
    scored.sort_by(|a, b| b.1.total_cmp(&a.1).then(a.0.cmp(&b.0)));
    if operator != "phrase" {
        scored.truncate(k);
    }
    scored
}

/// Scores to five digits, ids wherever scores tell them apart.
fn same_ranking(answer: &Value, expected: &[(u64, f64)], scored: bool) -> Result<(), String> {
    let hits = answer["hits"].as_array().cloned().unwrap_or_default();
    let found: Vec<(u64, f64)> = hits
        .iter()
        .map(|hit| {
            (
                hit["id"].as_u64().unwrap_or(u64::MAX),
                hit["score"].as_f64().unwrap_or(f64::NAN),
            )
        })
        .collect();
    let by_id: BTreeMap<u64, f64> = expected.iter().copied().collect();
    if !scored {
        let wrong = found.iter().find(|(id, _)| !by_id.contains_key(id));
        return match wrong {
            Some((id, _)) => Err(format!("{id} does not have the phrase")),
            None if found.is_empty() != expected.is_empty() => Err("no hits where there are some".into()),
            None => Ok(()),
        };
    }
    if found.len() != expected.len() {
        return Err(format!("{} hits instead of {}", found.len(), expected.len()));
    }
    for ((id, score), (_, wanted)) in found.iter().zip(expected) {
        if (score - wanted).abs() > 1e-5 * wanted.abs().max(1.0) {
            return Err(format!("{id} has {score} where the score is {wanted}"));
        }
    }
    let ordered = found
        .windows(2)
        .all(|pair| pair[0].1 > pair[1].1 || (pair[0].1 == pair[1].1 && pair[0].0 < pair[1].0));
    match ordered {
        true => Ok(()),
        false => Err("ties do not go to the smaller id".into()),
    }
}

async fn what_was_written_is_found_at_once(t: &Suite) {
    t.create("at-once", json!({"fields": {"gloss": "text"}})).await;
    t.write(
        "at-once",
        json!({"upsert": [{"id": "a", "gloss": "a lighthouse"}, {"id": "b", "gloss": "a harbour"}]}),
    )
    .await;
    ask_once(t, "a new text").await.ids("/hits", &["a"]);
    t.write(
        "at-once",
        json!({"upsert": [{"id": "a", "gloss": "a buoy"}, {"id": "b", "gloss": "two lighthouses"}]}),
    )
    .await;
    ask_once(t, "an overwritten text").await.ids("/hits", &["b"]);
    t.client().optimize("at-once").await.expect("optimize works");
    ask_once(t, "a sealed text").await.ids("/hits", &["b"]);
    t.write(
        "at-once",
        json!({"patch": [{"id": "a", "gloss": "the lighthouse"}], "delete": ["b"]}),
    )
    .await;
    ask_once(t, "a patched one, and a deleted one")
        .await
        .ids("/hits", &["a"]);
    t.write("at-once", json!({"upsert": [{"id": "a", "gloss": null}]}))
        .await;
    ask_once(t, "a text that was taken away").await.ids("/hits", &[]);
    t.case("a field that came later")
        .post(
            &documents("at-once"),
            json!({"upsert": [{"id": "c", "gloss": "a lighthouse"}]}),
        )
        .await
        .status(200);
    ask_once(t, "after it").await.ids("/hits", &["c"]);
}

async fn ask_once<'t>(t: &'t Suite, what: &str) -> Seen<'t> {
    t.case(what)
        .post(&query("at-once"), json!({"text": "lighthouse"}))
        .await
}

async fn words_are_understood(t: &Suite) {
    let fields = json!({"title": "text", "body": {"type": "text", "language": "english"},
        "de": {"type": "text", "language": "german"}});
    t.create("words", json!({"fields": fields})).await;
    t.write(
        "words",
        json!({"upsert": [
            {"id": "sail", "title": "Sailing", "body": "how to sail a small boat across the bay"},
            {"id": "ship", "title": "Ships of war", "body": "large vessels, boats not among them"},
            {"id": "café", "title": "Café au lait", "body": "naïve drinks for coffee lovers"},
            {"id": "haus", "de": "die alten Häuser am Hafen"},
        ]}),
    )
    .await;
    for settled in [false, true] {
        if settled {
            t.client().optimize("words").await.expect("optimize works");
        }
        for (text, ids) in [
            (json!("sailed"), vec!["sail"]),
            (json!("BOAT"), vec!["sail", "ship"]),
            (json!("the of a"), vec![]),
            (json!("cafe"), vec!["café"]),
            (json!("naive"), vec!["café"]),
            (json!("haus"), vec!["haus"]),
            (json!({"query": "small boats", "operator": "and"}), vec!["sail"]),
            (json!({"query": "small boat", "operator": "phrase"}), vec!["sail"]),
            (json!({"query": "boat small", "operator": "phrase"}), vec![]),
            (
                json!({"query": "ships war", "operator": "and", "fields": ["title"]}),
                vec!["ship"],
            ),
            (json!({"query": "boat", "fields": ["title"]}), vec![]),
            (json!({"query": "vess", "prefix": true}), vec!["ship"]),
            (json!({"query": "vessle", "fuzzy": 2}), vec!["ship"]),
            (json!({"query": "cofee", "fuzzy": 1}), vec!["café"]),
            (json!({"query": "cofee"}), vec![]),
        ] {
            let body = json!({"text": text});
            let mut ids: Vec<&str> = ids;
            ids.sort_unstable();
            t.case(format!("{body}, settled: {settled}"))
                .post(&query("words"), body)
                .await
                .status(200)
                .holds(|answer| {
                    let mut found = ids_at(&answer.json(), "/hits");
                    found.sort_unstable();
                    match found == ids {
                        true => Ok(()),
                        false => Err(format!("found {found:?} instead of {ids:?}")),
                    }
                });
        }
        t.case("a field that counts more")
            .post(
                &query("words"),
                json!({"text": {"query": "sailing vessel", "fields": {"title": 5, "body": 1}}}),
            )
            .await
            .ids("/hits", &["sail", "ship"]);
        t.case("and the other one")
            .post(
                &query("words"),
                json!({"text": {"query": "sailing vessel", "fields": {"title": 0.1, "body": 10}}}),
            )
            .await
            .check("the ship is a hit", |answer| {
                ids_at(answer, "/hits").contains(&"ship".to_owned())
            });
    }
}

async fn hits_are_highlighted(t: &Suite) {
    t.create("marked", json!({"fields": {"gloss": "text", "note": "text"}}))
        .await;
    t.write(
        "marked",
        json!({"upsert": [{"id": 1, "gloss": "A small boat, and another boat.", "note": "boat"}]}),
    )
    .await;
    t.case("highlights of all fields")
        .post(&query("marked"), json!({"text": "boats", "highlight": true}))
        .await
        .at(
            "/hits/0/highlights/gloss/0",
            json!("A small <em>boat</em>, and another <em>boat</em>."),
        )
        .at("/hits/0/highlights/note/0", json!("<em>boat</em>"));
    t.case("of one, with marks of one's own")
        .post(
            &query("marked"),
            json!({"text": "small", "highlight": {"fields": ["gloss"], "before": "[", "after": "]"}, "include": ["note"]}),
        )
        .await
        .check("the mark", |answer| plain(&answer["hits"][0]["highlights"]["gloss"][0]).contains("A [small] boat"))
        .lacks("/hits/0/attributes/gloss");
}

async fn text_and_vectors_are_fused(t: &Suite, rng: &mut StdRng) {
    t.create(
        "both",
        json!({"fields": {"gloss": "text", "e": {"type": "vector", "dim": 4}, "n": "int"}}),
    )
    .await;
    let rows: Vec<Value> = (0..300)
        .map(|id| json!({"id": id, "gloss": spoken(&text(rng)), "e": vector(rng, 4), "n": id % 3}))
        .collect();
    t.write("both", json!({"upsert": rows})).await;
    let vector = json!([0.5, -0.5, 0.25, 1.0]);
    let filter = json!({"n": {"$ne": 1}});
    let ranking = async |body: Value| {
        let answer = t
            .client()
            .post(&query("both"), &body)
            .send()
            .await
            .expect("an answer");
        ids_at(&answer.json(), "/hits")
    };
    let by_vector = ranking(json!({"vector": vector, "k": 100, "filter": filter, "exact": true})).await;
    let by_text = ranking(json!({"text": spoken(&[1, 2, 7]), "k": 100, "filter": filter})).await;
    let mut sums: BTreeMap<String, f64> = BTreeMap::new();
    for (list, weight) in [(&by_vector, 2.0), (&by_text, 1.0)] {
        for (at, id) in list.iter().enumerate() {
            *sums.entry(id.clone()).or_default() += weight / (61.0 + at as f64);
        }
    }
    let mut expected: Vec<(String, f64)> = sums.into_iter().collect();
    let number = |id: &str| id.parse::<u64>().unwrap_or(u64::MAX);
    expected.sort_by(|a, b| {
        (b.1 as f32)
            .total_cmp(&(a.1 as f32))
            .then(number(&a.0).cmp(&number(&b.0)))
    });
    let expected: Vec<&str> = expected.iter().take(10).map(|(id, _)| id.as_str()).collect();
    t.case("a vector and words, weighted")
        .post(
            &query("both"),
            json!({"vector": vector, "text": spoken(&[1, 2, 7]), "filter": filter, "exact": true,
                "fuse": {"method": "rrf", "k": 60, "weights": [2, 1]}}),
        )
        .await
        .status(200)
        .ids("/hits", &expected);
}

async fn wrong_queries_are_refused(t: &Suite) {
    t.create("plain", json!({"fields": {"n": "int", "gloss": "text"}}))
        .await;
    let many = (0..1_500).map(word).collect::<Vec<_>>().join(" ");
    for (text, status, code, field) in [
        (
            json!({"query": "a", "fields": ["n"]}),
            422,
            "type_mismatch",
            "text.fields[0]",
        ),
        (
            json!({"query": "a", "fields": {"gloss": -1}}),
            422,
            "invalid_value",
            "text.fields.gloss",
        ),
        (
            json!({"query": "a b", "operator": "phrase", "fuzzy": 1}),
            422,
            "invalid_value",
            "text.fuzzy",
        ),
        (
            json!(many[..4_000.min(many.len())].to_owned() + " x"),
            200,
            "",
            "",
        ),
    ] {
        let case = t
            .case(format!(
                "text {}",
                text.to_string().chars().take(80).collect::<String>()
            ))
            .post(&query("plain"), json!({"text": text}))
            .await;
        match status {
            200 => case.status(200),
            _ => case.refused(status, code).field(field),
        };
    }
    t.create("textless", json!({"fields": {"n": "int"}})).await;
    t.case("a collection without texts")
        .post(&query("textless"), json!({"text": "boat"}))
        .await
        .status_in(&[422]);
}
