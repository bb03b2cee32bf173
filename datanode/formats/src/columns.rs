//! Arrow values as JSON values: what an import from Arrow or Parquet hands to the one
//! place that types documents.

use std::sync::Arc;

use arrow_array::cast::AsArray;
use arrow_array::types::{
    ArrowDictionaryKeyType, ArrowPrimitiveType, Date32Type, Date64Type, Decimal128Type, Float16Type,
    Float32Type, Float64Type, Int8Type, Int16Type, Int32Type, Int64Type, TimestampMicrosecondType,
    TimestampMillisecondType, TimestampNanosecondType, TimestampSecondType, UInt8Type, UInt16Type,
    UInt32Type, UInt64Type,
};
use arrow_array::{Array, ArrayRef, RecordBatch, downcast_dictionary_array};
use arrow_schema::{DataType, Schema as ArrowSchema, TimeUnit};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use rhumb_core::problem::shorten;
use rhumb_core::{Code, Element, FieldName, FieldType, Json, Limits, Problem, Schema, time};

const MOST_COLUMNS: usize = 4_096;
const MS_PER_DAY: i64 = 24 * 60 * 60 * 1000;

/// Whether rows can be made of such columns, before the first row is.
pub fn check(schema: &ArrowSchema) -> Result<(), Problem> {
    if schema.fields().len() > MOST_COLUMNS {
        return Err(Problem::new(
            Code::LimitExceeded,
            format!("more than {MOST_COLUMNS} columns"),
        ));
    }
    for field in schema.fields() {
        let name = field.name();
        if name != "id" {
            FieldName::parse(name)?;
        } else if !is_id(field.data_type()) {
            let detail = format!("ids are strings or unsigned integers, not {}", field.data_type());
            return Err(Problem::new(Code::InvalidId, detail).field("id"));
        }
        if !is_readable(field.data_type()) {
            let detail = format!("columns of type {} cannot be imported", field.data_type());
            return Err(Problem::new(Code::TypeMismatch, detail)
                .field(shorten(name))
                .hint("cast the column to numbers, strings, timestamps or lists of these"));
        }
    }
    match schema
        .fields()
        .iter()
        .filter(|field| field.name() == "id")
        .count()
    {
        1 => Ok(()),
        0 => Err(Problem::new(Code::InvalidId, "no column is called id").field("id")),
        _ => Err(Problem::new(Code::Malformed, "two columns are called id").field("id")),
    }
}

fn is_id(ty: &DataType) -> bool {
    match ty {
        DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View => true,
        DataType::Dictionary(_, values) => is_id(values),
        other => other.is_integer(),
    }
}

fn is_readable(ty: &DataType) -> bool {
    match ty {
        DataType::Null
        | DataType::Boolean
        | DataType::Float16
        | DataType::Float32
        | DataType::Float64
        | DataType::Utf8
        | DataType::LargeUtf8
        | DataType::Utf8View
        | DataType::Binary
        | DataType::LargeBinary
        | DataType::FixedSizeBinary(_)
        | DataType::Timestamp(_, _)
        | DataType::Date32
        | DataType::Date64
        | DataType::Decimal128(_, _) => true,
        DataType::List(item) | DataType::LargeList(item) | DataType::FixedSizeList(item, _) => {
            is_readable(item.data_type())
        }
        DataType::Struct(fields) => fields.iter().all(|field| is_readable(field.data_type())),
        DataType::Dictionary(_, values) => is_readable(values),
        other => other.is_integer(),
    }
}

/// One row as an object; nulls are left out.
pub fn row(batch: &RecordBatch, row: usize, schema: &Schema, limits: &Limits) -> Result<Json, Problem> {
    let mut fields = Vec::with_capacity(batch.num_columns());
    for (field, column) in batch.schema_ref().fields().iter().zip(batch.columns()) {
        let name = field.name();
        let target = schema.get(name);
        let value = match target {
            Some(FieldType::Json) => json_text(column, row, limits),
            Some(FieldType::Vector(vector)) if vector.element == Element::Binary => {
                packed_bits(column, row, vector.dim)
            }
            _ => None,
        };
        let value = match value {
            Some(value) => value,
            None => cell(column, row).map_err(|problem| problem.within(name))?,
        };
        if !value.is_null() {
            fields.push((Arc::from(name.as_str()), value));
        }
    }
    Ok(Json::Object(fields))
}

/// Text in a json field is the JSON it reads as (so an export comes back as it was), else
/// a string.
fn json_text(column: &ArrayRef, row: usize, limits: &Limits) -> Option<Json> {
    let Ok(Json::Str(text)) = cell(column, row) else {
        return None;
    };
    Json::parse(text.as_bytes(), limits).ok()
}

/// Bits of a binary vector, eight to a byte, as an export has them.
fn packed_bits(column: &ArrayRef, row: usize, dim: u32) -> Option<Json> {
    let list = column
        .as_fixed_size_list_opt()
        .filter(|list| list.is_valid(row))?;
    let bytes = list.value(row);
    let bytes = bytes.as_primitive_opt::<UInt8Type>()?;
    let packed = dim > 1 && bytes.len() == dim.div_ceil(8) as usize;
    packed.then(|| base64_of(bytes.values()))
}

fn base64_of(bytes: &[u8]) -> Json {
    Json::from(format!("b64:{}", STANDARD.encode(bytes)).as_str())
}

fn cell(column: &ArrayRef, row: usize) -> Result<Json, Problem> {
    if column.is_null(row) {
        return Ok(Json::Null);
    }
    let text = |text: &str| Ok(Json::from(text));
    match column.data_type() {
        DataType::Null => Ok(Json::Null),
        DataType::Boolean => Ok(Json::Bool(column.as_boolean().value(row))),
        DataType::Int8 => int::<Int8Type>(column, row),
        DataType::Int16 => int::<Int16Type>(column, row),
        DataType::Int32 => int::<Int32Type>(column, row),
        DataType::Int64 => int::<Int64Type>(column, row),
        DataType::UInt8 => int::<UInt8Type>(column, row),
        DataType::UInt16 => int::<UInt16Type>(column, row),
        DataType::UInt32 => int::<UInt32Type>(column, row),
        DataType::UInt64 => Ok(Json::from(serde_json::Value::from(
            column.as_primitive::<UInt64Type>().value(row),
        ))),
        DataType::Float16 => float(f64::from(column.as_primitive::<Float16Type>().value(row))),
        DataType::Float32 => float(f64::from(column.as_primitive::<Float32Type>().value(row))),
        DataType::Float64 => float(column.as_primitive::<Float64Type>().value(row)),
        DataType::Decimal128(_, scale) => {
            float(column.as_primitive::<Decimal128Type>().value(row) as f64 / 10_f64.powi(i32::from(*scale)))
        }
        DataType::Utf8 => text(column.as_string::<i32>().value(row)),
        DataType::LargeUtf8 => text(column.as_string::<i64>().value(row)),
        DataType::Utf8View => text(column.as_string_view().value(row)),
        DataType::Binary => Ok(base64_of(column.as_binary::<i32>().value(row))),
        DataType::LargeBinary => Ok(base64_of(column.as_binary::<i64>().value(row))),
        DataType::FixedSizeBinary(_) => Ok(base64_of(column.as_fixed_size_binary().value(row))),
        DataType::Timestamp(unit, _) => timestamp(column, *unit, row),
        DataType::Date32 => moment(i64::from(column.as_primitive::<Date32Type>().value(row)) * MS_PER_DAY),
        DataType::Date64 => moment(column.as_primitive::<Date64Type>().value(row)),
        DataType::List(_) => items(&column.as_list::<i32>().value(row)),
        DataType::LargeList(_) => items(&column.as_list::<i64>().value(row)),
        DataType::FixedSizeList(_, _) => items(&column.as_fixed_size_list().value(row)),
        DataType::Struct(fields) => {
            let columns = column.as_struct().columns().iter().zip(fields);
            let each =
                columns.map(|(column, field)| Ok((Arc::from(field.name().as_str()), cell(column, row)?)));
            each.collect::<Result<_, Problem>>().map(Json::Object)
        }
        DataType::Dictionary(_, _) => entry(column, row),
        other => Err(Problem::new(
            Code::TypeMismatch,
            format!("values of type {other} cannot be imported"),
        )),
    }
}

fn int<T: ArrowPrimitiveType>(column: &ArrayRef, row: usize) -> Result<Json, Problem>
where
    i64: From<T::Native>,
{
    Ok(Json::Int(i64::from(column.as_primitive::<T>().value(row))))
}

fn float(x: f64) -> Result<Json, Problem> {
    if x.is_finite() {
        return Ok(Json::Float(x));
    }
    Err(Problem::new(Code::NotFinite, format!("{x} is not finite")))
}

fn timestamp(column: &ArrayRef, unit: TimeUnit, row: usize) -> Result<Json, Problem> {
    let ms = match unit {
        TimeUnit::Second => column
            .as_primitive::<TimestampSecondType>()
            .value(row)
            .saturating_mul(1_000),
        TimeUnit::Millisecond => column.as_primitive::<TimestampMillisecondType>().value(row),
        TimeUnit::Microsecond => column
            .as_primitive::<TimestampMicrosecondType>()
            .value(row)
            .div_euclid(1_000),
        TimeUnit::Nanosecond => column
            .as_primitive::<TimestampNanosecondType>()
            .value(row)
            .div_euclid(1_000_000),
    };
    moment(ms)
}

fn moment(ms: i64) -> Result<Json, Problem> {
    let text = time::format(ms);
    match time::parse(&text) {
        Ok(same) if same == ms => Ok(Json::from(text.as_str())),
        _ => Err(Problem::new(
            Code::TypeMismatch,
            "the timestamp is outside the years 0000 to 9999",
        )),
    }
}

/// A list; of numbers without gaps it is one packed list, which is what vectors are.
fn items(list: &ArrayRef) -> Result<Json, Problem> {
    if list.null_count() == 0 && !list.is_empty() {
        let floats = match list.data_type() {
            DataType::Float32 => Some(widened(list.as_primitive::<Float32Type>().values())),
            DataType::Float16 => Some(widened(list.as_primitive::<Float16Type>().values())),
            DataType::Float64 => Some(list.as_primitive::<Float64Type>().values().to_vec()),
            _ => None,
        };
        if let Some(floats) = floats {
            return match floats.iter().position(|x| !x.is_finite()) {
                None => Ok(Json::Floats(floats)),
                Some(at) => float(floats[at]).map_err(|problem| problem.field(format!("[{at}]"))),
            };
        }
    }
    let each = (0..list.len()).map(|at| cell(list, at).map_err(|problem| problem.within(&format!("[{at}]"))));
    each.collect::<Result<Vec<_>, _>>().map(Json::list)
}

fn widened<T: Copy + Into<f64>>(values: &[T]) -> Vec<f64> {
    values.iter().map(|x| (*x).into()).collect()
}

fn entry(column: &ArrayRef, row: usize) -> Result<Json, Problem> {
    fn value_of<K: ArrowDictionaryKeyType>(
        dictionary: &arrow_array::DictionaryArray<K>,
        row: usize,
    ) -> Result<Json, Problem> {
        match dictionary.key(row) {
            Some(key) => cell(dictionary.values(), key),
            None => Ok(Json::Null),
        }
    }
    downcast_dictionary_array!(
        column => value_of(column, row),
        other => Err(Problem::new(Code::TypeMismatch, format!("{other} is no dictionary")))
    )
}

#[cfg(test)]
mod tests {
    use arrow_array::builder::{
        FixedSizeListBuilder, Float32Builder, Int64Builder, ListBuilder, UInt8Builder,
    };
    use arrow_array::{
        BinaryArray, BooleanArray, Date32Array, Decimal128Array, DictionaryArray, Float64Array, Int32Array,
        StringArray, StructArray, Time32SecondArray, TimestampNanosecondArray, UInt64Array,
    };
    use arrow_schema::{Field, Fields};
    use rhumb_core::schema::Field as DocumentField;
    use rhumb_core::{Metric, VectorIndex, VectorType};

    use super::*;

    fn batch(columns: Vec<(&str, ArrayRef)>) -> RecordBatch {
        RecordBatch::try_from_iter_with_nullable(columns.into_iter().map(|(name, array)| (name, array, true)))
            .expect("columns of one length")
    }

    fn json_of(text: &str) -> Json {
        Json::parse(text.as_bytes(), &Limits::default()).expect("json")
    }

    fn first_row(columns: Vec<(&str, ArrayRef)>) -> Result<Json, Problem> {
        row(&batch(columns), 0, &Schema::default(), &Limits::default())
    }

    fn floats(values: &[f32], width: i32) -> ArrayRef {
        let mut list = FixedSizeListBuilder::new(Float32Builder::new(), width);
        list.values().append_slice(values);
        list.append(true);
        Arc::new(list.finish())
    }

    #[test]
    fn every_kind_of_column_becomes_json() {
        let mut tags = ListBuilder::new(Int64Builder::new());
        tags.append_value([Some(1), Some(2)]);
        let dictionary: DictionaryArray<arrow_array::types::Int8Type> = ["n"].into_iter().collect();
        let inner: ArrayRef = Arc::new(StringArray::from(vec!["red"]));
        let fields = Fields::from(vec![Field::new("color", DataType::Utf8, true)]);
        let read = first_row(vec![
            ("id", Arc::new(UInt64Array::from(vec![u64::MAX]))),
            ("live", Arc::new(BooleanArray::from(vec![true]))),
            ("lex", Arc::new(Int32Array::from(vec![-3]))),
            ("price", Arc::new(Float64Array::from(vec![1.5]))),
            (
                "at",
                Arc::new(TimestampNanosecondArray::from(vec![1_500_000_000_999_999]).with_timezone("+02:00")),
            ),
            ("day", Arc::new(Date32Array::from(vec![1]))),
            (
                "sum",
                Arc::new(
                    Decimal128Array::from(vec![1234])
                        .with_precision_and_scale(10, 2)
                        .expect("fits"),
                ),
            ),
            ("pos", Arc::new(dictionary)),
            ("tags", Arc::new(tags.finish())),
            ("extra", Arc::new(StructArray::new(fields, vec![inner], None))),
            ("embedding", floats(&[0.5, -1.0], 2)),
            ("bytes", Arc::new(BinaryArray::from(vec![b"abc".as_slice()]))),
            ("missing", Arc::new(StringArray::from(vec![None::<&str>]))),
        ]);
        let expected = r#"{"id": 18446744073709551615, "live": true, "lex": -3, "price": 1.5,
            "at": "1970-01-18T08:40:00.000Z", "day": "1970-01-02T00:00:00.000Z", "sum": 12.34, "pos": "n",
            "tags": [1, 2], "extra": {"color": "red"}, "embedding": [0.5, -1.0], "bytes": "b64:YWJj"}"#;
        let Json::Object(mut expected) = json_of(expected) else {
            panic!("an object")
        };
        let Ok(Json::Object(mut read)) = read else {
            panic!("an object")
        };
        expected.sort_by(|a, b| a.0.cmp(&b.0));
        read.sort_by(|a, b| a.0.cmp(&b.0));
        // 1,500,000,000,999,999 ns are 1,500,000 s and a bit less than a millisecond.
        assert_eq!(read, expected);
    }

    #[test]
    fn what_is_not_finite_is_refused_at_its_place() {
        let id: ArrayRef = Arc::new(StringArray::from(vec!["a"]));
        let problem =
            first_row(vec![("id", id.clone()), ("v", floats(&[1.0, f32::NAN], 2))]).expect_err("NaN");
        assert_eq!(
            (problem.code, problem.field.as_deref()),
            (Code::NotFinite, Some("v[1]"))
        );
        let infinite: ArrayRef = Arc::new(Float64Array::from(vec![f64::INFINITY]));
        assert_eq!(
            first_row(vec![("id", id), ("x", infinite)])
                .expect_err("infinite")
                .code,
            Code::NotFinite
        );
    }

    #[test]
    fn columns_that_make_no_rows_are_refused_before_the_first_row() {
        let id = Field::new("id", DataType::Utf8, false);
        let refusal = |fields: Vec<Field>| check(&ArrowSchema::new(fields)).expect_err("refused").code;
        assert_eq!(
            refusal(vec![Field::new("pos", DataType::Utf8, true)]),
            Code::InvalidId
        );
        assert_eq!(
            refusal(vec![Field::new("id", DataType::Float64, true)]),
            Code::InvalidId
        );
        assert_eq!(refusal(vec![id.clone(), id.clone()]), Code::Malformed);
        assert_eq!(
            refusal(vec![id.clone(), Field::new("a b", DataType::Utf8, true)]),
            Code::InvalidName
        );
        let time = Time32SecondArray::from(vec![1]).data_type().clone();
        assert_eq!(
            refusal(vec![id.clone(), Field::new("t", time, true)]),
            Code::TypeMismatch
        );
        assert!(check(&ArrowSchema::new(vec![id])).is_ok());
    }

    #[test]
    fn an_export_of_json_and_of_bits_comes_back_as_it_was() {
        let mut schema = Schema::default();
        let bits = VectorType {
            dim: 10,
            metric: Metric::Hamming,
            element: Element::Binary,
            index: VectorIndex::Auto,
        };
        for (name, ty) in [("extra", FieldType::Json), ("bits", FieldType::Vector(bits))] {
            let name = FieldName::parse(name).expect("a name");
            schema.fields.insert(name, DocumentField { ty, declared: true });
        }
        let mut list = FixedSizeListBuilder::new(UInt8Builder::new(), 2);
        list.values().append_slice(&[0b1010_0000, 0b0100_0000]);
        list.append(true);
        let batch = batch(vec![
            ("id", Arc::new(StringArray::from(vec!["a"]))),
            ("extra", Arc::new(StringArray::from(vec!["{\"x\": [1, null]}"]))),
            ("bits", Arc::new(list.finish())),
        ]);
        let read = row(&batch, 0, &schema, &Limits::default()).expect("valid");
        assert_eq!(
            read,
            json_of(r#"{"id": "a", "extra": {"x": [1, null]}, "bits": "b64:oEA="}"#)
        );
    }
}
