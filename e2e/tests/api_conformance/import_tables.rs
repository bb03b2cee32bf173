//! Import of tables: Arrow streams and Parquet files, as other programs write them.

use std::sync::Arc;

use arrow_array::builder::{FixedSizeListBuilder, Float32Builder, ListBuilder, StringBuilder};
use arrow_array::types::Int32Type;
use arrow_array::{
    ArrayRef, BooleanArray, DictionaryArray, Float16Array, Float32Array, Float64Array, Int8Array, Int32Array,
    Int64Array, LargeStringArray, RecordBatch, StringArray, StringViewArray, TimestampMicrosecondArray,
    TimestampMillisecondArray, UInt64Array,
};
use parquet::arrow::ArrowWriter;
use parquet::basic::Compression;
use parquet::file::properties::WriterProperties;
use rhumb_e2e::Suite;
use serde_json::{Value, json};

use crate::import::{done, import};
use crate::{document, documents};

const ARROW: &str = "application/vnd.apache.arrow.stream";
const PARQUET: &str = "application/vnd.apache.parquet";

#[tokio::test]
async fn tables_are_imported() {
    let t = Suite::start("import_tables").await;
    for (name, content_type) in [("arrow", ARROW), ("parquet", PARQUET)] {
        plain_tables_are_imported(&t, name, content_type).await;
        other_physical_types_are_read(&t, name, content_type).await;
        undeclared_columns_are_inferred(&t, name, content_type).await;
        broken_rows_are_counted(&t, name, content_type).await;
        broken_files_are_refused(&t, name, content_type).await;
    }
    compressions_are_read(&t).await;
    t.finish().await;
}

fn encode(batches: &[RecordBatch], content_type: &str, compression: Compression) -> Vec<u8> {
    let schema = batches[0].schema();
    let mut out = Vec::new();
    if content_type == ARROW {
        let mut writer = arrow_ipc::writer::StreamWriter::try_new(&mut out, &schema).expect("a writer");
        for batch in batches {
            writer.write(batch).expect("written");
        }
        writer.finish().expect("finished");
    } else {
        let properties = WriterProperties::builder().set_compression(compression).build();
        let mut writer = ArrowWriter::try_new(&mut out, schema, Some(properties)).expect("a writer");
        for batch in batches {
            writer.write(batch).expect("written");
        }
        writer.close().expect("closed");
    }
    out
}

fn table(columns: Vec<(&str, ArrayRef)>) -> RecordBatch {
    RecordBatch::try_from_iter_with_nullable(columns.into_iter().map(|(name, array)| (name, array, true)))
        .expect("a batch")
}

fn vectors(rows: &[Option<[f32; 2]>]) -> ArrayRef {
    let mut builder = FixedSizeListBuilder::new(Float32Builder::new(), 2);
    for row in rows {
        for value in row.unwrap_or_default() {
            builder.values().append_value(value);
        }
        builder.append(row.is_some());
    }
    Arc::new(builder.finish())
}

fn list_vectors(rows: &[&[f32]]) -> ArrayRef {
    let mut builder = ListBuilder::new(Float32Builder::new());
    for row in rows {
        builder.values().append_slice(row);
        builder.append(true);
    }
    Arc::new(builder.finish())
}

fn lists(rows: &[Option<&[&str]>]) -> ArrayRef {
    let mut builder = ListBuilder::new(StringBuilder::new());
    for row in rows {
        for text in row.unwrap_or_default() {
            builder.values().append_value(text);
        }
        builder.append(row.is_some());
    }
    Arc::new(builder.finish())
}

fn fields() -> Value {
    json!({"v": {"type": "vector", "dim": 2}, "n": "int", "f": "float", "b": "bool", "s": "string", "at": "timestamp", "tags": ["string"]})
}

async fn plain_tables_are_imported(t: &Suite, name: &str, content_type: &str) {
    t.create(name, json!({"fields": fields()})).await;
    let batch = table(vec![
        ("id", Arc::new(StringArray::from(vec!["a", "b", "c"]))),
        ("v", vectors(&[Some([1.0, 0.0]), None, Some([0.5, -0.5])])),
        (
            "n",
            Arc::new(Int64Array::from(vec![Some(1), None, Some(i64::MIN)])),
        ),
        (
            "f",
            Arc::new(Float64Array::from(vec![Some(0.1), Some(-2.0), None])),
        ),
        (
            "b",
            Arc::new(BooleanArray::from(vec![Some(true), None, Some(false)])),
        ),
        (
            "s",
            Arc::new(StringArray::from(vec![Some("text"), Some(""), None])),
        ),
        (
            "at",
            Arc::new(TimestampMillisecondArray::from(vec![Some(0), None, Some(-1)]).with_timezone("UTC")),
        ),
        ("tags", lists(&[Some(&["x", "y"]), Some(&[]), None])),
    ]);
    let more = table(vec![
        ("id", Arc::new(StringArray::from(vec!["d"]))),
        ("v", vectors(&[Some([3.0, 4.0])])),
        ("n", Arc::new(Int64Array::from(vec![9]))),
        ("f", Arc::new(Float64Array::from(vec![1.5]))),
        ("b", Arc::new(BooleanArray::from(vec![true]))),
        ("s", Arc::new(StringArray::from(vec!["é"]))),
        (
            "at",
            Arc::new(TimestampMillisecondArray::from(vec![1_704_067_200_123]).with_timezone("UTC")),
        ),
        ("tags", lists(&[Some(&["z"])])),
    ]);
    done(
        import(
            t,
            name,
            encode(&[batch, more], content_type, Compression::UNCOMPRESSED),
            content_type,
        )
        .await,
        4,
        0,
    );
    for (id, expected) in [
        (
            "a",
            json!({"v": [1.0, 0.0], "n": 1, "f": 0.1, "b": true, "s": "text", "at": "1970-01-01T00:00:00.000Z", "tags": ["x", "y"]}),
        ),
        ("b", json!({"f": -2.0, "s": "", "tags": []})),
        (
            "c",
            json!({"v": [0.5, -0.5], "n": i64::MIN, "b": false, "at": "1969-12-31T23:59:59.999Z"}),
        ),
        (
            "d",
            json!({"v": [3.0, 4.0], "n": 9, "f": 1.5, "b": true, "s": "é", "at": "2024-01-01T00:00:00.123Z", "tags": ["z"]}),
        ),
    ] {
        t.case(format!("{name} row {id}"))
            .get(&document(name, id))
            .await
            .at("/document", expected);
    }
}

async fn other_physical_types_are_read(t: &Suite, name: &str, content_type: &str) {
    let dictionary: DictionaryArray<Int32Type> = vec![Some("red"), None, Some("red")].into_iter().collect();
    let batch = table(vec![
        ("id", Arc::new(LargeStringArray::from(vec!["p", "q", "r"]))),
        ("v", list_vectors(&[&[1.0, 2.0], &[3.0, 4.0], &[5.0, 6.0]])),
        ("n", Arc::new(Int32Array::from(vec![1, -2, 3]))),
        ("f", Arc::new(Float32Array::from(vec![0.5, 1.5, 2.5]))),
        ("s", Arc::new(dictionary)),
        (
            "at",
            Arc::new(TimestampMicrosecondArray::from(vec![1_000, 2_000, 3_999])),
        ),
    ]);
    done(
        import(
            t,
            name,
            encode(&[batch], content_type, Compression::UNCOMPRESSED),
            content_type,
        )
        .await,
        3,
        0,
    );
    t.case(format!("{name} of other widths"))
        .get(&document(name, "p"))
        .await
        .at(
            "/document",
            json!({"v": [1.0, 2.0], "n": 1, "f": 0.5, "s": "red", "at": "1970-01-01T00:00:00.001Z"}),
        );
    t.case(format!("{name} null in a dictionary"))
        .get(&document(name, "q"))
        .await
        .lacks("/document/s");
    t.case(format!("{name} finer times are cut"))
        .get(&document(name, "r"))
        .await
        .at("/document/at", "1970-01-01T00:00:00.003Z");

    let numbers = format!("{name}-n");
    t.create(
        &numbers,
        json!({"fields": {"v": {"type": "vector", "dim": 2}, "s": "string", "n": "int", "f": "float"}}),
    )
    .await;
    let halves: Vec<half::f16> = [0.5, 1.5].into_iter().map(half::f16::from_f32).collect();
    let batch = table(vec![
        ("id", Arc::new(UInt64Array::from(vec![1, u64::MAX]))),
        (
            "s",
            Arc::new(StringViewArray::from(vec![
                "short",
                "a text longer than twelve bytes",
            ])),
        ),
        ("n", Arc::new(Int8Array::from(vec![1, -1]))),
        ("f", Arc::new(Float16Array::from(halves))),
    ]);
    done(
        import(
            t,
            &numbers,
            encode(&[batch], content_type, Compression::UNCOMPRESSED),
            content_type,
        )
        .await,
        2,
        0,
    );
    t.case(format!("{name} with numbers for ids"))
        .get(&document(&numbers, &u64::MAX.to_string()))
        .await
        .at(
            "/document",
            json!({"s": "a text longer than twelve bytes", "n": -1, "f": 1.5}),
        );
}

async fn undeclared_columns_are_inferred(t: &Suite, name: &str, content_type: &str) {
    let batch = table(vec![
        ("id", Arc::new(StringArray::from(vec!["u"]))),
        ("fresh", Arc::new(Int64Array::from(vec![5]))),
        ("words", lists(&[Some(&["w"])])),
    ]);
    done(
        import(
            t,
            name,
            encode(&[batch], content_type, Compression::UNCOMPRESSED),
            content_type,
        )
        .await,
        1,
        0,
    );
    t.case(format!("{name} undeclared columns"))
        .get(&document(name, "u"))
        .await
        .at("/document", json!({"fresh": 5, "words": ["w"]}));
}

async fn broken_rows_are_counted(t: &Suite, name: &str, content_type: &str) {
    let batch = table(vec![
        (
            "id",
            Arc::new(StringArray::from(vec![
                Some("k1"),
                Some("k2"),
                None,
                Some(""),
                Some("k3"),
            ])),
        ),
        (
            "v",
            list_vectors(&[&[1.0, 2.0], &[1.0], &[1.0, 2.0], &[1.0, 2.0], &[f32::NAN, 1.0]]),
        ),
    ]);
    done(
        import(
            t,
            name,
            encode(&[batch], content_type, Compression::UNCOMPRESSED),
            content_type,
        )
        .await,
        1,
        4,
    );
    t.case(format!("{name} the good row"))
        .get(&format!("{}?prefix=k", documents(name)))
        .await
        .ids("/documents", &["k1"]);
    let misfit = table(vec![
        ("id", Arc::new(StringArray::from(vec!["m1", "m2"]))),
        ("n", Arc::new(StringArray::from(vec!["one", "two"]))),
    ]);
    let body = encode(&[misfit], content_type, Compression::UNCOMPRESSED);
    import(t, name, body, content_type).await.status_in(&[200, 422]);
    let no_id = table(vec![("n", Arc::new(Int64Array::from(vec![1])))]);
    let body = encode(&[no_id], content_type, Compression::UNCOMPRESSED);
    import(t, name, body, content_type)
        .await
        .status_in(&[200, 422, 400]);
    t.case(format!("{name} nothing of these"))
        .get(&format!("{}?prefix=m", documents(name)))
        .await
        .at("/documents", json!([]));
}

/// Whatever the bytes: no 5xx, no panic, and the good rows before the damage may stay.
async fn broken_files_are_refused(t: &Suite, name: &str, content_type: &str) {
    let batch = table(vec![
        (
            "id",
            Arc::new(StringArray::from_iter_values((0..200).map(|n| format!("z{n}")))),
        ),
        ("n", Arc::new(Int64Array::from_iter_values(0..200))),
    ]);
    let good = encode(&[batch], content_type, Compression::UNCOMPRESSED);
    for garbage in [
        &b""[..],
        b"garbage",
        b"PAR1",
        b"PAR1PAR1",
        b"ARROW1\0\0",
        &[0xff; 4096],
        &[0; 4096],
    ] {
        import(t, name, garbage.to_vec(), content_type)
            .await
            .status_in(&[200, 400, 422]);
    }
    for cut in [4, good.len() / 3, good.len() / 2, good.len() - 1] {
        import(t, name, good[..cut].to_vec(), content_type)
            .await
            .status_in(&[200, 400, 422]);
    }
    let step = (good.len() / 150).max(1);
    for at in (0..good.len()).step_by(step) {
        let mut flipped = good.clone();
        flipped[at] ^= 0xff;
        import(t, name, flipped, content_type)
            .await
            .status_in(&[200, 400, 422]);
    }
    t.case(format!("{name} is still served"))
        .get(&document(name, "a"))
        .await
        .status(200);
}

async fn compressions_are_read(t: &Suite) {
    for (n, compression) in [
        Compression::SNAPPY,
        Compression::ZSTD(Default::default()),
        Compression::LZ4_RAW,
        Compression::GZIP(Default::default()),
    ]
    .into_iter()
    .enumerate()
    {
        let batch = table(vec![
            (
                "id",
                Arc::new(StringArray::from_iter_values(
                    (0..100).map(|row| format!("w{n}-{row:02}")),
                )),
            ),
            (
                "s",
                Arc::new(StringArray::from_iter_values((0..100).map(|_| "the same text"))),
            ),
        ]);
        done(
            import(t, "parquet", encode(&[batch], PARQUET, compression), PARQUET).await,
            100,
            0,
        );
        t.case(format!("{compression:?}"))
            .get(&document("parquet", &format!("w{n}-99")))
            .await
            .at("/document/s", "the same text");
    }
}
