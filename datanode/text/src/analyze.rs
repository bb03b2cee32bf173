//! Text to terms, the same for splits, fresh rows, queries and highlights.
//!
//! Words → lower case → stop words out → accents off → stem.  A stop word or an overlong
//! word leaves a gap in the positions, so a phrase across it still has its distance.
//! Accents go before the stem, so that a word has one term with and without them.

use std::collections::BTreeMap;
use std::fmt;

use rhumb_core::problem::{Code, did_you_mean, shorten};
use rhumb_core::{FieldName, FieldType, Problem, Schema};
use tantivy::tokenizer::{
    AsciiFoldingFilter, Language, Stemmer, StopWordFilter, TextAnalyzer, Token, TokenStream, Tokenizer,
};

/// Longer words are noise (keys, hashes, base64), and no stemmer has use for them.
pub(crate) const MAX_WORD_BYTES: usize = 128;

const LANGUAGES: [(&str, Language); 18] = [
    ("arabic", Language::Arabic),
    ("danish", Language::Danish),
    ("dutch", Language::Dutch),
    ("english", Language::English),
    ("finnish", Language::Finnish),
    ("french", Language::French),
    ("german", Language::German),
    ("greek", Language::Greek),
    ("hungarian", Language::Hungarian),
    ("italian", Language::Italian),
    ("norwegian", Language::Norwegian),
    ("portuguese", Language::Portuguese),
    ("romanian", Language::Romanian),
    ("russian", Language::Russian),
    ("spanish", Language::Spanish),
    ("swedish", Language::Swedish),
    ("tamil", Language::Tamil),
    ("turkish", Language::Turkish),
];

/// How the text of one field becomes terms.  Cheap to clone; one thread uses one.
#[derive(Clone)]
pub struct Analyzer {
    language: &'static str,
    terms: TextAnalyzer,
    /// Neither stop words nor stems: what the beginning of a word is compared with.
    words: TextAnalyzer,
}

impl Analyzer {
    pub fn of(language: &str) -> Result<Self, Problem> {
        let Some(&(name, known)) = LANGUAGES.iter().find(|(name, _)| *name == language) else {
            let detail = format!("there are no stemmer and stop words for '{}'", shorten(language));
            return Err(Problem::new(Code::InvalidValue, detail)
                .field("language")
                .hint(did_you_mean(language, LANGUAGES.map(|(name, _)| name))));
        };
        let stop_words = StopWordFilter::new(known).unwrap_or_else(|| StopWordFilter::remove([]));
        Ok(Self {
            language: name,
            terms: TextAnalyzer::builder(Words::default())
                .filter(stop_words)
                .filter(AsciiFoldingFilter)
                .filter(Stemmer::new(known))
                .build(),
            words: TextAnalyzer::builder(Words::default())
                .filter(AsciiFoldingFilter)
                .build(),
        })
    }

    pub fn language(&self) -> &'static str {
        self.language
    }

    /// The terms of a text in order, with their positions and where they stand in it.
    pub(crate) fn terms(&mut self, text: &str, mut each: impl FnMut(&Token)) {
        self.terms.token_stream(text).process(&mut |token| each(token));
    }

    /// The words of a text, in lower case and without accents.
    pub(crate) fn words(&mut self, text: &str, mut each: impl FnMut(&Token)) {
        self.words.token_stream(text).process(&mut |token| each(token));
    }

    pub(crate) fn tantivy(&self) -> TextAnalyzer {
        self.terms.clone()
    }
}

impl fmt::Debug for Analyzer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Analyzer({})", self.language)
    }
}

/// The text fields of a schema and how each is analyzed.
#[derive(Clone, Debug, Default)]
pub struct TextFields {
    fields: BTreeMap<FieldName, Analyzer>,
}

impl TextFields {
    pub fn of(schema: &Schema) -> Result<Self, Problem> {
        let mut fields = Self::default();
        for name in schema.fields.keys() {
            if let Some(FieldType::Text { language }) = schema.get(name.as_str()) {
                fields.add(name.clone(), language)?;
            }
        }
        Ok(fields)
    }

    pub fn add(&mut self, field: FieldName, language: &str) -> Result<(), Problem> {
        self.fields.insert(field, Analyzer::of(language)?);
        Ok(())
    }

    pub fn is_empty(&self) -> bool {
        self.fields.is_empty()
    }

    pub fn get(&self, field: &str) -> Option<&Analyzer> {
        self.fields.get(field)
    }

    pub fn iter(&self) -> impl Iterator<Item = (&FieldName, &Analyzer)> {
        self.fields.iter()
    }
}

/// Runs of letters and digits with the marks that belong to them, in lower case.
///
/// A combining accent is dropped, so decomposed and composed text give one term.  Signs
/// that join letters inside a word of an Indic script do not end it.
#[derive(Clone, Default)]
struct Words {
    token: Token,
}

struct WordStream<'a> {
    text: &'a str,
    at: usize,
    /// Of the next word.
    position: usize,
    token: &'a mut Token,
}

impl Tokenizer for Words {
    type TokenStream<'a> = WordStream<'a>;

    fn token_stream<'a>(&'a mut self, text: &'a str) -> WordStream<'a> {
        self.token.reset();
        WordStream {
            text,
            at: 0,
            position: 0,
            token: &mut self.token,
        }
    }
}

impl TokenStream for WordStream<'_> {
    fn advance(&mut self) -> bool {
        while let Some(start) = self.next_start() {
            self.token.text.clear();
            self.take_word(start);
            self.token.position = self.position;
            self.position += 1;
            if self.token.text.len() <= MAX_WORD_BYTES && !self.token.text.is_empty() {
                return true;
            }
        }
        false
    }

    fn token(&self) -> &Token {
        self.token
    }

    fn token_mut(&mut self) -> &mut Token {
        self.token
    }
}

impl WordStream<'_> {
    fn next_start(&mut self) -> Option<usize> {
        let bytes = self.text.as_bytes();
        while let Some(&byte) = bytes.get(self.at) {
            if byte.is_ascii_alphanumeric() {
                return Some(self.at);
            }
            if byte.is_ascii() {
                self.at += 1;
                continue;
            }
            let c = self.text[self.at..].chars().next()?;
            if c.is_alphanumeric() {
                return Some(self.at);
            }
            self.at += c.len_utf8();
        }
        None
    }

    fn take_word(&mut self, start: usize) {
        let bytes = self.text.as_bytes();
        while let Some(&byte) = bytes.get(self.at) {
            if byte.is_ascii() {
                if !byte.is_ascii_alphanumeric() {
                    break;
                }
                self.push(byte.to_ascii_lowercase() as char);
                self.at += 1;
                continue;
            }
            let Some(c) = self.text[self.at..].chars().next() else {
                break;
            };
            if !(c.is_alphanumeric() || joins(c) || is_accent(c)) {
                break;
            }
            c.to_lowercase().for_each(|c| self.push(c));
            self.at += c.len_utf8();
        }
        self.token.offset_from = start;
        self.token.offset_to = self.at;
    }

    /// Keeps no more of a word than tells that it is too long.
    fn push(&mut self, c: char) {
        if self.token.text.len() <= MAX_WORD_BYTES && !is_accent(c) {
            self.token.text.push(c);
        }
    }
}

fn is_accent(c: char) -> bool {
    matches!(c, '\u{300}'..='\u{36f}' | '\u{200c}' | '\u{200d}')
}

/// Viramas and the like: marks that are not letters and stand inside words.
fn joins(c: char) -> bool {
    matches!(
        c,
        '\u{93c}'
            | '\u{94d}'
            | '\u{9bc}'
            | '\u{9cd}'
            | '\u{a3c}'
            | '\u{a4d}'
            | '\u{abc}'
            | '\u{acd}'
            | '\u{b3c}'
            | '\u{b4d}'
            | '\u{bcd}'
            | '\u{c4d}'
            | '\u{cbc}'
            | '\u{ccd}'
            | '\u{d4d}'
            | '\u{dca}'
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn terms(language: &str, text: &str) -> Vec<(usize, String)> {
        let mut out = Vec::new();
        let mut analyzer = Analyzer::of(language).expect("known");
        analyzer.terms(text, |t| out.push((t.position, t.text.clone())));
        out
    }

    fn plain(language: &str, text: &str) -> Vec<String> {
        terms(language, text).into_iter().map(|(_, text)| text).collect()
    }

    #[test]
    fn stop_words_leave_gaps_and_words_lose_their_endings() {
        let expected = [(1, "boat"), (4, "sail"), (5, "harbour")].map(|(p, t)| (p, t.to_owned()));
        assert_eq!(terms("english", "The boats, of the sailing HARBOURS!"), expected);
    }

    #[test]
    fn a_word_has_one_term_with_accents_composed_decomposed_or_without() {
        for text in ["café", "cafe\u{301}", "CAFÉ", "cafe"] {
            assert_eq!(plain("english", text), ["cafe"], "{text}");
        }
        assert_eq!(plain("german", "Häuser"), plain("german", "hauser"));
        assert_eq!(plain("turkish", "İ"), ["i"]);
    }

    #[test]
    fn an_overlong_word_is_left_out_and_keeps_its_place() {
        let text = format!("boat {} ship", "x".repeat(MAX_WORD_BYTES + 1));
        assert_eq!(
            terms("english", &text),
            [(0, "boat".to_owned()), (2, "ship".to_owned())]
        );
        assert_eq!(plain("english", &"y".repeat(MAX_WORD_BYTES)).len(), 1);
    }

    #[test]
    fn a_tamil_word_is_one_word() {
        assert_eq!(plain("tamil", "தமிழ்நாடு").len(), 1);
        assert_eq!(plain("arabic", "الكتاب والقلم").len(), 2);
    }

    #[test]
    fn offsets_are_of_the_text_as_it_was_given() {
        let text = "x — cafe\u{301}s";
        let mut at = Vec::new();
        Analyzer::of("english")
            .expect("known")
            .terms(text, |t| at.push(&text[t.offset_from..t.offset_to]));
        assert_eq!(at, ["x", "cafe\u{301}s"]);
    }

    #[test]
    fn every_language_that_a_field_may_have_is_there() {
        for language in LANGUAGES.map(|(name, _)| name) {
            assert!(!plain(language, "boat").is_empty());
        }
        let problem = Analyzer::of("engish").expect_err("unknown");
        assert_eq!(problem.hint.as_deref(), Some("did you mean 'english'?"));
    }
}
