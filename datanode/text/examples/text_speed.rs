//! What text search costs, beside bare tantivy on the same texts, in CPU time of one
//! core: `cargo run -p rhumb-text --example text_speed [FILE]`.  FILE has one text per
//! line; without it the texts are made here, Zipf over 50,000 words.  Ratios, not promises.

use std::io::{self, Write};
use std::time::Duration;

use rhumb_core::FieldName;
use rhumb_text::{
    Allowed, FreshText, Index, Operator, Part, SearchSpec, Split, SplitBuilder, TextFields, TextQuery,
    TextRow, search,
};
use tantivy::collector::TopDocs;
use tantivy::query::{BooleanQuery, Occur, PhraseQuery, Query, TermQuery};
use tantivy::schema::{Field, IndexRecordOption, Schema, TextFieldIndexing, TextOptions};
use tantivy::tokenizer::{
    LowerCaser, RemoveLongFilter, SimpleTokenizer, Stemmer, StopWordFilter, TextAnalyzer, TokenStream,
};
use tantivy::{Searcher, TantivyDocument, Term};

const TEXTS: usize = 100_000;
const QUERIES: usize = 300;
const WORDS: usize = 50_000;

/// CPU time of this thread since some point.
struct Instant(Duration);

impl Instant {
    fn now() -> Self {
        let time = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
        Self(Duration::new(time.tv_sec.unsigned_abs(), time.tv_nsec as u32))
    }

    fn elapsed(&self) -> Duration {
        Self::now().0.saturating_sub(self.0)
    }
}

struct Dice(u64);

impl Dice {
    fn next(&mut self) -> f64 {
        self.0 = self
            .0
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 11) as f64 / (1u64 << 53) as f64
    }

    fn below(&mut self, end: usize) -> usize {
        (self.next() * end as f64) as usize
    }

    /// 1 / rank, by the inverse of the logarithm that sums it up.
    fn zipf(&mut self) -> usize {
        ((WORDS as f64).powf(self.next()) as usize).min(WORDS - 1)
    }
}

fn made(dice: &mut Dice) -> Vec<String> {
    let text = |_| {
        let words = 6 + dice.below(12);
        (0..words)
            .map(|_| format!("w{}q", dice.zipf()))
            .collect::<Vec<_>>()
            .join(" ")
    };
    (0..TEXTS).map(text).collect()
}

/// Bare tantivy with the same terms: one segment in memory.
struct Bare {
    searcher: Searcher,
    field: Field,
    analyzer: TextAnalyzer,
}

impl Bare {
    fn new(texts: &[String]) -> Result<Self, Box<dyn std::error::Error>> {
        let analyzer = TextAnalyzer::builder(SimpleTokenizer::default())
            .filter(RemoveLongFilter::limit(128))
            .filter(LowerCaser)
            .filter(StopWordFilter::new(tantivy::tokenizer::Language::English).ok_or("stop words")?)
            .filter(Stemmer::new(tantivy::tokenizer::Language::English))
            .build();
        let mut schema = Schema::builder();
        let indexing = TextFieldIndexing::default()
            .set_tokenizer("bare")
            .set_index_option(IndexRecordOption::WithFreqsAndPositions);
        let field = schema.add_text_field("gloss", TextOptions::default().set_indexing_options(indexing));
        let index = tantivy::Index::create_in_ram(schema.build());
        index.tokenizers().register("bare", analyzer.clone());
        let mut writer = index.writer_with_num_threads::<TantivyDocument>(1, 200 << 20)?;
        for text in texts {
            let mut document = TantivyDocument::new();
            document.add_text(field, text);
            writer.add_document(document)?;
        }
        writer.commit()?;
        let searcher = index.reader()?.searcher();
        Ok(Self {
            searcher,
            field,
            analyzer,
        })
    }

    fn search(&mut self, words: &str, operator: Operator, k: usize) -> Result<usize, tantivy::TantivyError> {
        let mut terms = Vec::new();
        let mut stream = self.analyzer.token_stream(words);
        while stream.advance() {
            terms.push((
                stream.token().position,
                Term::from_field_text(self.field, &stream.token().text),
            ));
        }
        let query: Box<dyn Query> = if operator == Operator::Phrase && terms.len() > 1 {
            Box::new(PhraseQuery::new_with_offset(terms))
        } else {
            let occur = if operator == Operator::And {
                Occur::Must
            } else {
                Occur::Should
            };
            let term = |term| Box::new(TermQuery::new(term, IndexRecordOption::WithFreqs)) as Box<dyn Query>;
            Box::new(BooleanQuery::new(
                terms.into_iter().map(|(_, t)| (occur, term(t))).collect(),
            ))
        };
        Ok(self
            .searcher
            .search(&query, &TopDocs::with_limit(k).order_by_score())?
            .len())
    }
}

fn queries(texts: &[String], words: usize, dice: &mut Dice) -> Vec<String> {
    let query = |_| {
        let text: Vec<&str> = texts[dice.below(texts.len())].split_whitespace().collect();
        let from = dice.below(text.len().saturating_sub(words).max(1));
        text.iter()
            .skip(from)
            .take(words)
            .copied()
            .collect::<Vec<_>>()
            .join(" ")
    };
    (0..QUERIES).map(query).collect()
}

/// Mean of the fastest of five rounds.
fn mean(queries: &[String], mut run: impl FnMut(&str) -> usize) -> (Duration, usize) {
    let mut best = Duration::MAX;
    let mut hits = 0;
    for _ in 0..5 {
        let started = Instant::now();
        hits = queries.iter().map(|query| run(query)).sum();
        best = best.min(started.elapsed());
    }
    (best / queries.len() as u32, hits)
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut out = io::stdout();
    let mut dice = Dice(42);
    let texts: Vec<String> = match std::env::args().nth(1) {
        Some(path) => std::fs::read_to_string(path)?
            .lines()
            .map(str::to_owned)
            .collect(),
        None => made(&mut dice),
    };
    let gloss = FieldName::parse("gloss")?;
    let mut fields = TextFields::default();
    fields.add(gloss, "english")?;

    let bytes: usize = texts.iter().map(String::len).sum();
    writeln!(out, "{} texts, {:.1} MB", texts.len(), bytes as f64 / 1e6)?;
    let started = Instant::now();
    let fresh = FreshText::new();
    for text in &texts {
        fresh.push(&fields, |_| Some(text))?;
    }
    let took = started.elapsed();
    let per_second = texts.len() as f64 / took.as_secs_f64();
    writeln!(
        out,
        "fresh: {per_second:.0} rows/s, {:.1} MB",
        fresh.heap_size() as f64 / 1e6
    )?;
    let started = Instant::now();
    let mut builder = SplitBuilder::new(&fields)?;
    for text in &texts {
        builder.push(|_| Some(text))?;
    }
    let blob = builder.finish()?;
    let per_second = texts.len() as f64 / started.elapsed().as_secs_f64();
    writeln!(
        out,
        "split: {per_second:.0} rows/s, {:.1} MB",
        blob.len() as f64 / 1e6
    )?;
    let started = Instant::now();
    let split = Split::open(blob)?;
    writeln!(
        out,
        "open: {:?}, {:.1} MB held",
        started.elapsed(),
        split.heap_size() as f64 / 1e6
    )?;
    let mut bare = Bare::new(&texts)?;

    let rows = texts.len() as u32;
    let every_tenth: Vec<u64> = (0..texts.len().div_ceil(64))
        .map(|at| 0x8020_0802_0080_2008u64.rotate_left(at as u32))
        .collect();
    let every_hundredth: Vec<u64> = (0..texts.len().div_ceil(64))
        .map(|at| u64::from(at % 2 == 0) << (at % 61))
        .collect();
    let run = |parts: &[Part<'_>], words: &str, operator: Operator, k: usize| {
        let query = TextQuery {
            operator,
            ..TextQuery::new(words)
        };
        let spec = SearchSpec {
            query: &query,
            fields: &fields,
            k,
            tie: &|a: TextRow, b: TextRow| a.cmp(&b),
        };
        search(parts, &spec).map_or(0, |hits| hits.len())
    };
    let sealed = |allowed| {
        [Part {
            index: Index::Sealed(&split),
            allowed,
            ascending: true,
        }]
    };
    let in_fresh = [Part {
        index: Index::Fresh {
            text: &fresh,
            rows,
            live: None,
        },
        allowed: Allowed::All,
        ascending: true,
    }];
    writeln!(
        out,
        "{:22} {:>9} {:>9} {:>6} {:>9} {:>9} {:>9}",
        "µs per query", "tantivy", "split", "ratio", "fresh", "10 %", "0.8 %"
    )?;
    for (name, words, operator, k) in [
        ("or, 1 word", 1, Operator::Or, 10),
        ("or, 2 words", 2, Operator::Or, 10),
        ("or, 3 words", 3, Operator::Or, 10),
        ("or, 4 words", 4, Operator::Or, 10),
        ("or, 8 words", 8, Operator::Or, 10),
        ("or, 4 words, k 100", 4, Operator::Or, 100),
        ("or, 4 words, k 10,000", 4, Operator::Or, 10_000),
        ("and, 2 words", 2, Operator::And, 10),
        ("and, 4 words", 4, Operator::And, 10),
        ("phrase, 2 words", 2, Operator::Phrase, 10),
        ("phrase, 3 words", 3, Operator::Phrase, 10),
    ] {
        let asked = queries(&texts, words, &mut dice);
        let (theirs, found) = mean(&asked, |words| bare.search(words, operator, k).unwrap_or(0));
        let (ours, same) = mean(&asked, |words| run(&sealed(Allowed::All), words, operator, k));
        let (fresh, _) = mean(&asked, |words| run(&in_fresh, words, operator, k));
        let (tenth, _) = mean(&asked, |words| {
            run(&sealed(Allowed::Words(&every_tenth)), words, operator, k)
        });
        let (few, _) = mean(&asked, |words| {
            run(&sealed(Allowed::Words(&every_hundredth)), words, operator, k)
        });
        let us = |time: Duration| time.as_secs_f64() * 1e6;
        let ratio = us(theirs) / us(ours);
        writeln!(
            out,
            "{name:22} {:9.1} {:9.1} {ratio:6.2} {:9.1} {:9.1} {:9.1}  {}",
            us(theirs),
            us(ours),
            us(fresh),
            us(tenth),
            us(few),
            if found == same { "" } else { "other hits!" },
        )?;
    }
    Ok(())
}
