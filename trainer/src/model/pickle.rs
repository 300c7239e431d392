//! `pytorch_model.bin`: a torch checkpoint, read as data.
//!
//! A pickle is a program for a small stack machine that may call anything. Ours knows only what a state dict is made of
//! and refuses the rest by name, so that nothing in a file is ever run. Values lie in one flat list and refer to each
//! other by number: what a file says cannot nest, copy or grow beyond its own length. Offsets, strides and sizes are
//! checked against the storages that are there before anything is allocated for them.

use std::collections::HashMap;
use std::fs::File;
use std::io::{BufReader, Read};
use std::path::Path;

use candle_core::{DType, Device, Tensor};
use splade_files::TensorInfo;
use zip::ZipArchive;

use super::problem::CheckpointProblem;
use crate::{Error, Result};

/// A part of a file, or what is wrong with it, without the name of the file.
type Parsed<T> = Result<T, String>;

/// Reads the tensors of a state dict; those of whole numbers or booleans are buffers, without their values.
///
/// # Errors
/// A file that is no torch checkpoint, or holds anything but a state dict.
pub(super) fn read(path: &Path) -> Result<Vec<(String, Option<Tensor>)>> {
    with_archive(path, Archive::tensors)
}

/// Lists the tensors of a `pytorch_model.bin` without reading their values.
///
/// # Errors
/// A file that is no torch checkpoint, or holds anything but a state dict.
pub fn read_torch_tensor_list(path: &Path) -> Result<Vec<TensorInfo>> {
    with_archive(path, Archive::list)
}

fn with_archive<T>(path: &Path, read: impl FnOnce(&mut Archive) -> Parsed<T>) -> Result<T> {
    let file = splade_files::open_file(path)?;
    let length = file.metadata().map_err(Error::io(path))?.len();
    Archive::open(file, length).and_then(|mut archive| read(&mut archive)).map_err(|message| Error::Checkpoint {
        path: path.to_owned(),
        problem: CheckpointProblem::Format { format: "torch", message },
    })
}

/// No state dict describes its tensors at such length.
const LONGEST_PICKLE: u64 = 1 << 24;
/// Tensors may share a storage (a tied matrix does), but not so often that a small file fills the memory.
const SHARED_AT_MOST: u64 = 4;

/// The zip file around a pickle and its storages.
struct Archive {
    zip: ZipArchive<BufReader<File>>,
    length: u64,
    /// the start of every name, before `data.pkl` and `data/…`
    folder: String,
}

impl Archive {
    fn open(mut file: File, length: u64) -> Parsed<Self> {
        let mut start = [0; 4];
        let known = file.read(&mut start).map_err(|error| error.to_string())?;
        std::io::Seek::rewind(&mut file).map_err(|error| error.to_string())?;
        match &start[..known] {
            b"PK\x03\x04" => {}
            [0x80, ..] => return Err("it is of a torch before 1.6; load it and save it again with a newer one".into()),
            b"vers" => return Err("it is a git-lfs pointer; fetch the file itself".into()),
            _ => return Err("it is no zip file".into()),
        }
        let zip = ZipArchive::new(BufReader::new(file)).map_err(|error| error.to_string())?;
        let names: Vec<String> = zip.file_names().filter_map(|name| Some(name.ok()?.into_owned())).collect();
        let mut pickles = names.iter().filter_map(|name| name.strip_suffix("data.pkl"));
        let folder = match (pickles.next(), pickles.next()) {
            (Some(folder), None) if folder.is_empty() || folder.ends_with('/') => folder.to_owned(),
            (None, _) => return Err("it has no data.pkl".into()),
            _ => return Err("it has more than one data.pkl".into()),
        };
        Ok(Self { zip, length, folder })
    }

    /// The bytes of an entry, which torch stores as they are.
    fn entry(&mut self, name: &str, longest: u64) -> Parsed<Vec<u8>> {
        let name = format!("{}{name}", self.folder);
        let entry = self.zip.by_name(&name).map_err(|error| format!("{name}: {error}"))?;
        let size = entry.size();
        if size > longest.min(self.length) {
            return Err(format!("{name} says that it has {size} bytes"));
        }
        let mut bytes = Vec::with_capacity(size as usize);
        entry.take(size).read_to_end(&mut bytes).map_err(|error| format!("{name}: {error}"))?;
        if bytes.len() as u64 != size { Err(format!("{name} ends early")) } else { Ok(bytes) }
    }

    /// Lists the tensors; those that are no floats have the type `INT`.
    fn list(&mut self) -> Parsed<Vec<TensorInfo>> {
        let pickle = self.entry("data.pkl", LONGEST_PICKLE)?;
        let info = |(name, view): (String, View)| {
            let count = view.count().map_err(|message| format!("tensor {}: {message}", shown(&name)))? as u64;
            let (dtype, bytes) = match view.storage.dtype {
                Some(dtype) => (dtype.as_str().to_uppercase(), count.saturating_mul(dtype.size_in_bytes() as u64)),
                None => {
                    let entry = self.zip.by_name(&format!("{}data/{}", self.folder, view.storage.key));
                    ("INT".to_owned(), entry.map_or(0, |entry| entry.size()))
                }
            };
            Ok(TensorInfo { name, dtype, shape: view.size, bytes })
        };
        Machine::default().run(&pickle)?.into_iter().map(info).collect()
    }

    fn tensors(&mut self) -> Parsed<Vec<(String, Option<Tensor>)>> {
        let byteorder = format!("{}byteorder", self.folder);
        if self.zip.index_for_name(&byteorder).is_some() && self.entry("byteorder", 16)? != b"little" {
            return Err("its numbers are not little-endian".into());
        }
        let pickle = self.entry("data.pkl", LONGEST_PICKLE)?;
        let found = Machine::default().run(&pickle)?;
        let mut left = self.length.saturating_mul(SHARED_AT_MOST);
        let mut tensors = Vec::new();
        for (name, view) in found {
            let Some(dtype) = view.storage.dtype else {
                tensors.push((name, None));
                continue;
            };
            let broken = |message: String| format!("tensor {}: {message}", shown(&name));
            let count = view.count().map_err(broken)?;
            let bytes = (count as u64).saturating_mul(dtype.size_in_bytes() as u64);
            left = left.checked_sub(bytes).ok_or_else(|| broken("more numbers than the file has".into()))?;
            let storage = self.entry(&format!("data/{}", view.storage.key), u64::MAX).map_err(broken)?;
            let tensor = view.tensor(&storage, dtype).map_err(broken)?;
            tensors.push((name, Some(tensor)));
        }
        Ok(tensors)
    }
}

/// A name from a file, fit for a message.
fn shown(name: &str) -> String {
    let short: String = name.chars().take(80).collect();
    if short.chars().any(char::is_control) { format!("{short:?}") } else { short }
}

#[derive(Clone, Debug)]
struct Storage {
    /// none for whole numbers and booleans
    dtype: Option<DType>,
    key: String,
}

/// A tensor as a pickle describes it.
#[derive(Clone, Debug)]
struct View {
    storage: Storage,
    offset: usize,
    size: Vec<usize>,
    stride: Vec<usize>,
}

impl View {
    fn count(&self) -> Parsed<usize> {
        let count = self.size.iter().try_fold(1_usize, |count, size| count.checked_mul(*size));
        count.ok_or_else(|| format!("shape {:?} is too large", self.size))
    }

    fn tensor(&self, storage: &[u8], dtype: DType) -> Parsed<Tensor> {
        let (count, width) = (self.count()?, dtype.size_in_bytes());
        let last = self.size.iter().zip(&self.stride).try_fold(self.offset, |last, (size, stride)| {
            last.checked_add(size.saturating_sub(1).checked_mul(*stride)?)
        });
        let has = storage.len() / width;
        if count > 0 && (count > has || last.is_none_or(|last| last >= has)) {
            let (size, stride) = (&self.size, &self.stride);
            return Err(format!(
                "shape {size:?} with strides {stride:?} from {} on is not within its {has} numbers",
                self.offset
            ));
        }
        let make = |bytes: &[u8]| {
            Tensor::from_raw_buffer(bytes, dtype, &self.size, &Device::Cpu).map_err(|error| error.to_string())
        };
        if count == 0 {
            return make(&[]);
        }
        if self.is_contiguous() {
            return make(&storage[self.offset * width..(self.offset + count) * width]);
        }
        let mut bytes = Vec::with_capacity(count * width);
        let mut index = vec![0; self.size.len()];
        for _ in 0..count {
            let at: usize = index.iter().zip(&self.stride).map(|(index, stride)| index * stride).sum();
            bytes.extend_from_slice(&storage[(self.offset + at) * width..][..width]);
            for axis in (0..index.len()).rev() {
                index[axis] += 1;
                if index[axis] < self.size[axis] {
                    break;
                }
                index[axis] = 0;
            }
        }
        make(&bytes)
    }

    fn is_contiguous(&self) -> bool {
        let mut expected = 1;
        self.size.iter().zip(&self.stride).rev().all(|(size, stride)| {
            let fits = *size == 1 || *stride == expected;
            expected *= size;
            fits
        })
    }
}

/// The number of a value in [`Machine::values`].
type Id = usize;

enum Value {
    /// values no state dict depends on: none, booleans, floats
    Other,
    Int(i64),
    Text(String),
    Global(String, String),
    Tuple(Vec<Id>),
    List(Vec<Id>),
    Dict(Vec<(Id, Id)>),
    Storage(Storage),
    Tensor(View),
}

/// Keys under which training loops store a state dict.
const STATE_DICTS: [&str; 3] = ["state_dict", "model_state_dict", "model"];

/// The stack machine.
#[derive(Default)]
struct Machine {
    values: Vec<Value>,
    stack: Vec<Id>,
    marks: Vec<usize>,
    memo: HashMap<u32, Id>,
}

/// The unread rest of a pickle.
struct Code<'a>(&'a [u8]);

impl<'a> Code<'a> {
    fn take(&mut self, count: usize) -> Parsed<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(count).ok_or("data.pkl ends early")?;
        self.0 = rest;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self) -> Parsed<[u8; N]> {
        Ok(self.take(N)?.try_into().expect("as many bytes as asked for"))
    }

    fn byte(&mut self) -> Parsed<u8> {
        Ok(self.array::<1>()?[0])
    }

    fn line(&mut self) -> Parsed<String> {
        let end = self.0.iter().position(|byte| *byte == b'\n').ok_or("data.pkl ends early")?;
        let line = self.take(end + 1)?;
        Ok(String::from_utf8_lossy(&line[..end]).into_owned())
    }

    fn text(&mut self, length: usize) -> Parsed<Value> {
        let text = std::str::from_utf8(self.take(length)?).map_err(|_| "a text that is not UTF-8")?;
        Ok(Value::Text(text.to_owned()))
    }
}

impl Machine {
    /// The tensors of the state dict a pickle makes.
    fn run(mut self, pickle: &[u8]) -> Parsed<Vec<(String, View)>> {
        let mut code = Code(pickle);
        loop {
            match code.byte()? {
                b'.' => break,
                step => self.step(step, &mut code)?,
            }
        }
        let made = self.pop()?;
        let outer = self.entries(made)?;
        // a training loop's checkpoint holds the state dict beside others
        let inner = outer.iter().find_map(|(name, value)| match (&self.values[*name], &self.values[*value]) {
            (Value::Text(name), Value::Dict(entries)) if STATE_DICTS.contains(&name.as_str()) => Some(entries),
            _ => None,
        });
        let tensors = |entries: &[(Id, Id)]| {
            let tensor = |(name, value): &(Id, Id)| match (&self.values[*name], &self.values[*value]) {
                (Value::Text(name), Value::Tensor(view)) => Some((name.clone(), view.clone())),
                _ => None,
            };
            entries.iter().filter_map(tensor).collect::<Vec<_>>()
        };
        let found = tensors(outer);
        Ok(if found.is_empty() { inner.map_or(found, |entries| tensors(entries)) } else { found })
    }

    fn entries(&self, id: Id) -> Parsed<&[(Id, Id)]> {
        match &self.values[id] {
            Value::Dict(entries) => Ok(entries),
            _ => Err("it holds no state dict, only a dict of tensors by name is read".into()),
        }
    }

    fn step(&mut self, step: u8, code: &mut Code<'_>) -> Parsed<()> {
        match step {
            // protocol, frame: nothing to do
            0x80 => drop(code.byte()?),
            0x95 => drop(code.take(8)?),
            b'(' => self.marks.push(self.stack.len()),
            b'N' | 0x88 | 0x89 => self.push(Value::Other),
            b'G' => {
                code.take(8)?;
                self.push(Value::Other);
            }
            b'K' => {
                let value = code.byte()?;
                self.push(Value::Int(value.into()));
            }
            b'M' => {
                let value = u16::from_le_bytes(code.array()?);
                self.push(Value::Int(value.into()));
            }
            b'J' => {
                let value = i32::from_le_bytes(code.array()?);
                self.push(Value::Int(value.into()));
            }
            0x8a => {
                let length = code.byte()?;
                let value = long(code.take(length.into())?)?;
                self.push(Value::Int(value));
            }
            b'X' => {
                let length = u32::from_le_bytes(code.array()?);
                let text = code.text(length as usize)?;
                self.push(text);
            }
            0x8c => {
                let length = code.byte()?;
                let text = code.text(length.into())?;
                self.push(text);
            }
            b'c' => {
                let (module, name) = (code.line()?, code.line()?);
                self.push(Value::Global(module, name));
            }
            0x93 => {
                let (name, module) = (self.pop()?, self.pop()?);
                let (Value::Text(module), Value::Text(name)) = (&self.values[module], &self.values[name]) else {
                    return Err("a global that is not named by texts".into());
                };
                self.push(Value::Global(module.clone(), name.clone()));
            }
            b'q' => {
                let at = code.byte()?;
                self.remember(at.into())?;
            }
            b'r' => {
                let at = u32::from_le_bytes(code.array()?);
                self.remember(at)?;
            }
            0x94 => self.remember(self.memo.len() as u32)?,
            b'h' => {
                let at = code.byte()?;
                self.recall(at.into())?;
            }
            b'j' => {
                let at = u32::from_le_bytes(code.array()?);
                self.recall(at)?;
            }
            b')' => self.push(Value::Tuple(Vec::new())),
            b']' => self.push(Value::List(Vec::new())),
            b'}' => self.push(Value::Dict(Vec::new())),
            0x85..=0x87 => {
                let mut items = (0x85..=step).map(|_| self.pop()).collect::<Parsed<Vec<Id>>>()?;
                items.reverse();
                self.push(Value::Tuple(items));
            }
            b't' => {
                let items = self.pop_to_mark()?;
                self.push(Value::Tuple(items));
            }
            b'a' => {
                let item = self.pop()?;
                self.list()?.push(item);
            }
            b'e' => {
                let items = self.pop_to_mark()?;
                self.list()?.extend(items);
            }
            b's' => {
                let (value, key) = (self.pop()?, self.pop()?);
                self.dict()?.push((key, value));
            }
            b'u' => {
                let items = self.pop_to_mark()?;
                let (pairs, []) = items.as_chunks() else { return Err("a key without a value".into()) };
                self.dict()?.extend(pairs.iter().map(|[key, value]| (*key, *value)));
            }
            b'Q' => {
                let id = self.pop()?;
                let storage = self.storage(id)?;
                self.push(Value::Storage(storage));
            }
            b'R' => {
                let (arguments, function) = (self.pop()?, self.pop()?);
                let made = self.call(function, arguments)?;
                self.stack.push(made);
            }
            // the state of a dict is notes about versions
            b'b' => {
                let (_state, object) = (self.pop()?, self.top()?);
                if !matches!(self.values[object], Value::Dict(_) | Value::Tensor(_)) {
                    return Err("the state of something that is no dict".into());
                }
            }
            0x81 => {
                let (_arguments, class) = (self.pop()?, self.pop()?);
                return Err(self.refused(class));
            }
            other => return Err(format!("data.pkl has the unknown step {other:#04x}")),
        }
        Ok(())
    }

    fn push(&mut self, value: Value) {
        self.stack.push(self.values.len());
        self.values.push(value);
    }

    fn top(&self) -> Parsed<Id> {
        let bottom = self.marks.last().copied().unwrap_or(0);
        self.stack[bottom..].last().copied().ok_or_else(|| "data.pkl takes what is not there".into())
    }

    fn pop(&mut self) -> Parsed<Id> {
        let top = self.top()?;
        self.stack.pop();
        Ok(top)
    }

    fn pop_to_mark(&mut self) -> Parsed<Vec<Id>> {
        let mark = self.marks.pop().ok_or("data.pkl goes back to a mark that is not there")?;
        Ok(self.stack.split_off(mark))
    }

    fn remember(&mut self, at: u32) -> Parsed<()> {
        let top = self.top()?;
        self.memo.insert(at, top);
        Ok(())
    }

    fn recall(&mut self, at: u32) -> Parsed<()> {
        let id = self.memo.get(&at).ok_or("data.pkl reads a value from a place where none was stored")?;
        self.stack.push(*id);
        Ok(())
    }

    fn list(&mut self) -> Parsed<&mut Vec<Id>> {
        let top = self.top()?;
        match &mut self.values[top] {
            Value::List(items) => Ok(items),
            _ => Err("an item for something that is no list".into()),
        }
    }

    fn dict(&mut self) -> Parsed<&mut Vec<(Id, Id)>> {
        let top = self.top()?;
        match &mut self.values[top] {
            Value::Dict(entries) => Ok(entries),
            _ => Err("an entry for something that is no dict".into()),
        }
    }

    fn tuple(&self, id: Id) -> Parsed<&[Id]> {
        match &self.values[id] {
            Value::Tuple(items) => Ok(items),
            _ => Err("arguments that are no tuple".into()),
        }
    }

    /// The result of a function, if it is one of those a state dict is made by.
    fn call(&mut self, function: Id, arguments: Id) -> Parsed<Id> {
        let Value::Global(module, name) = &self.values[function] else {
            return Err(self.refused(function));
        };
        match (module.as_str(), name.as_str(), self.tuple(arguments)?) {
            ("collections", "OrderedDict", []) => self.values.push(Value::Dict(Vec::new())),
            ("torch._utils", "_rebuild_tensor_v2" | "_rebuild_tensor", &[storage, offset, size, stride, ..]) => {
                let view = self.view(storage, offset, size, stride)?;
                self.values.push(Value::Tensor(view));
            }
            ("torch._utils", "_rebuild_parameter", [tensor, ..]) => return Ok(*tensor),
            // a function and the arguments to call it with; not itself, so that this does not nest
            ("torch._tensor", "_rebuild_from_type_v2", &[inner, _, arguments, ..]) if !matches!(&self.values[inner], Value::Global(module, _) if module == "torch._tensor") =>
            {
                return self.call(inner, arguments);
            }
            ("torch", "Size", [size]) => return Ok(*size),
            _ => return Err(self.refused(function)),
        }
        Ok(self.values.len() - 1)
    }

    fn refused(&self, function: Id) -> String {
        match &self.values[function] {
            Value::Global(module, name) => {
                format!("it calls {}, which is refused: only tensors are read", shown(&format!("{module}.{name}")))
            }
            _ => "it calls something that has no name, which is refused: only tensors are read".into(),
        }
    }

    /// `("storage", torch.FloatStorage, key, device, count)`
    fn storage(&self, id: Id) -> Parsed<Storage> {
        let [_, class, key, ..] = self.tuple(id)? else { return Err("a storage with too little said of it".into()) };
        let (Value::Global(module, class), Value::Text(key)) = (&self.values[*class], &self.values[*key]) else {
            return Err("a storage without class or key".into());
        };
        let dtype = match (module.as_str(), class.as_str()) {
            ("torch", "FloatStorage") => Some(DType::F32),
            ("torch", "DoubleStorage") => Some(DType::F64),
            ("torch", "HalfStorage") => Some(DType::F16),
            ("torch", "BFloat16Storage") => Some(DType::BF16),
            (
                "torch",
                "BoolStorage" | "ByteStorage" | "CharStorage" | "ShortStorage" | "IntStorage" | "LongStorage",
            ) => None,
            _ => return Err(format!("storages of {} are not read", shown(&format!("{module}.{class}")))),
        };
        Ok(Storage { dtype, key: key.clone() })
    }

    fn view(&self, storage: Id, offset: Id, size: Id, stride: Id) -> Parsed<View> {
        let Value::Storage(storage) = &self.values[storage] else { return Err("a tensor without a storage".into()) };
        let number = |id: Id| match self.values[id] {
            Value::Int(number) => usize::try_from(number).map_err(|_| format!("a tensor with {number} in its shape")),
            _ => Err("a tensor whose shape is not in numbers".into()),
        };
        let numbers = |id: Id| self.tuple(id)?.iter().map(|id| number(*id)).collect::<Parsed<Vec<usize>>>();
        let (size, stride) = (numbers(size)?, numbers(stride)?);
        if size.len() != stride.len() {
            return Err(format!("a tensor with {} axes and {} strides", size.len(), stride.len()));
        }
        Ok(View { storage: storage.clone(), offset: number(offset)?, size, stride })
    }
}

/// A whole number in two's complement, little-endian.
fn long(bytes: &[u8]) -> Parsed<i64> {
    let negative = bytes.last().is_some_and(|last| last & 0x80 != 0);
    let mut whole = [if negative { 0xff } else { 0 }; 8];
    whole.get_mut(..bytes.len()).ok_or("a number of more than 64 bits")?.copy_from_slice(bytes);
    Ok(i64::from_le_bytes(whole))
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::path::PathBuf;

    use zip::write::SimpleFileOptions;

    use super::*;

    /// A torch file around a pickle and one storage, `0`, of the floats 0 to 5.
    fn torch_file(pickle: &[u8]) -> (tempfile::TempDir, PathBuf) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("pytorch_model.bin");
        let mut zip = zip::ZipWriter::new(File::create(&path).unwrap());
        let floats: Vec<u8> = (0..6).flat_map(|n| (n as f32).to_le_bytes()).collect();
        for (name, bytes) in [("m/data.pkl", pickle), ("m/byteorder", b"little"), ("m/data/0", &floats)] {
            zip.start_file(name, SimpleFileOptions::default().compression_method(zip::CompressionMethod::Stored))
                .unwrap();
            zip.write_all(bytes).unwrap();
        }
        zip.finish().unwrap();
        (folder, path)
    }

    fn text(text: &str) -> Vec<u8> {
        [b"X", &(text.len() as u32).to_le_bytes()[..], text.as_bytes()].concat()
    }

    fn numbers(numbers: &[i32]) -> Vec<u8> {
        let items = numbers.iter().flat_map(|number| [b"J", &number.to_le_bytes()[..]].concat());
        [vec![b'('], items.collect(), vec![b't']].concat()
    }

    /// `{"w": _rebuild_tensor_v2(storage, offset, size, stride, …)}`
    fn state_dict(class: &str, key: &str, offset: i32, size: &[i32], stride: &[i32]) -> Vec<u8> {
        let storage = [b"(".to_vec(), text("storage"), format!("ctorch\n{class}\n").into(), text(key), text("cpu")];
        let offset = [b"J", &offset.to_le_bytes()[..]].concat();
        [
            b"\x80\x02}(".to_vec(),
            text("w"),
            b"ctorch._utils\n_rebuild_tensor_v2\n(".to_vec(),
            storage.concat(),
            b"K\x06tQ".to_vec(),
            offset,
            numbers(size),
            numbers(stride),
            b"\x89N".to_vec(),
            b"tRu.".to_vec(),
        ]
        .concat()
    }

    /// The tensors of floats: parameters, not buffers.
    fn floats_of(path: &Path) -> Result<Vec<(String, Tensor)>> {
        Ok(read(path)?.into_iter().filter_map(|(name, tensor)| Some((name, tensor?))).collect())
    }

    fn floats(pickle: &[u8]) -> Result<Vec<f32>, Error> {
        let (_folder, path) = torch_file(pickle);
        let found = floats_of(&path)?;
        assert_eq!(found.len(), 1);
        assert_eq!(found[0].0, "w");
        Ok(found[0].1.flatten_all()?.to_vec1()?)
    }

    #[test]
    fn strides_and_offsets_are_followed() {
        let read =
            |offset, size: &[i32], stride: &[i32]| floats(&state_dict("FloatStorage", "0", offset, size, stride));
        assert_eq!(read(0, &[2, 3], &[3, 1]).unwrap(), [0., 1., 2., 3., 4., 5.]);
        assert_eq!(read(0, &[3, 2], &[1, 3]).unwrap(), [0., 3., 1., 4., 2., 5.]);
        assert_eq!(read(2, &[2], &[2]).unwrap(), [2., 4.]);
        assert_eq!(read(5, &[], &[]).unwrap(), [5.]);
        assert_eq!(read(0, &[0, 3], &[3, 1]).unwrap(), [0.; 0]);
    }

    #[test]
    fn the_state_dict_of_a_training_loops_checkpoint_is_found() {
        let inner = state_dict("FloatStorage", "0", 0, &[2], &[1]);
        let nested = |key: &str| {
            let inner = &inner[2..inner.len() - 1];
            [b"\x80\x02}(", &text("epoch")[..], b"K\x03", &text(key), inner, b"u."].concat()
        };
        for key in STATE_DICTS {
            assert_eq!(floats(&nested(key)).unwrap(), [0., 1.], "{key}");
        }
        let (_folder, path) = torch_file(&nested("optimizer"));
        assert!(floats_of(&path).unwrap().is_empty());
    }

    #[test]
    fn the_published_form_reads_as_candle_and_as_safetensors_do() {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/fixtures/models/norbert3-tiny");
        let mut found = floats_of(&folder.join("pytorch_model.bin")).unwrap();
        let mut twin = candle_core::pickle::read_all(folder.join("pytorch_model.bin")).unwrap();
        twin.retain(|(_, tensor)| tensor.dtype().is_float());
        found.sort_by(|a, b| a.0.cmp(&b.0));
        twin.sort_by(|a, b| a.0.cmp(&b.0));
        assert!(found.len() > 30 && found.len() == twin.len());
        let values =
            |tensor: &Tensor| tensor.flatten_all().unwrap().to_dtype(DType::F32).unwrap().to_vec1::<f32>().unwrap();
        for ((name, tensor), (twin_name, twin)) in found.iter().zip(&twin) {
            assert_eq!((name, tensor.dims()), (twin_name, twin.dims()));
            assert_eq!(values(tensor), values(twin), "{name}");
        }
    }

    #[test]
    fn the_list_is_what_is_read() {
        let path =
            Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/fixtures/models/norbert3-tiny/pytorch_model.bin");
        let (listed, read) = (read_torch_tensor_list(&path).unwrap(), floats_of(&path).unwrap());
        let floats: Vec<(&str, &[usize])> = listed
            .iter()
            .filter(|tensor| tensor.is_float())
            .map(|tensor| (tensor.name.as_str(), &*tensor.shape))
            .collect();
        let tensors: Vec<(&str, &[usize])> = read.iter().map(|(name, tensor)| (name.as_str(), tensor.dims())).collect();
        assert_eq!(floats, tensors);
        let whole = listed.iter().find(|tensor| tensor.dtype == "INT").expect("it has position indices");
        assert_eq!(whole.bytes, 8 * whole.count());
    }

    #[test]
    fn what_is_no_state_dict_is_refused_in_one_line() {
        let call = |function: &str| [function.as_bytes(), &text("touch executed"), b"\x85R."].concat();
        let float = |offset, size: &[i32], stride: &[i32]| state_dict("FloatStorage", "0", offset, size, stride);
        let nested = [vec![b'N'; 1], vec![0x85; 1 << 20], vec![b'.']].concat();
        // every line doubles what the one before stands for
        let doubling = [b"Nq\x00".to_vec(), b"h\x00h\x00\x86q\x00".repeat(64), b".".to_vec()].concat();
        for (wanted, pickle) in [
            ("calls os.system, which is refused", call("cos\nsystem\n")),
            ("calls builtins.eval, which is refused", call("cbuiltins\neval\n")),
            ("calls posix.system, which is refused", [&text("posix")[..], &text("system"), b"\x93)R."].concat()),
            ("calls subprocess.Popen, which is refused", b"csubprocess\nPopen\n)\x81.".to_vec()),
            ("no name", b"K\x01)R.".to_vec()),
            ("no state dict", b"K\x01.".to_vec()),
            ("no state dict", nested),
            ("no state dict", doubling),
            ("ends early", b"\x80".to_vec()),
            ("ends early", b"X\xff\xff\xff\xffabc".to_vec()),
            ("unknown step", b"\x00".to_vec()),
            ("takes what is not there", b"(R.".to_vec()),
            ("mark that is not there", b"t.".to_vec()),
            ("where none was stored", b"h\x07.".to_vec()),
            ("more than 64 bits", b"\x8a\x09123456789.".to_vec()),
            ("a key without a value", b"}(Nu.".to_vec()),
            ("storages of torch.QInt8Storage", state_dict("QInt8Storage", "0", 0, &[1], &[1])),
            ("m/data/1", state_dict("FloatStorage", "1", 0, &[1], &[1])),
            ("tensor w: shape [7] with strides [1] from 0 on is not within its 6 numbers", float(0, &[7], &[1])),
            ("is not within its 6 numbers", float(5, &[2], &[1])),
            ("is not within its 6 numbers", float(0, &[2], &[6])),
            ("more numbers than the file has", float(0, &[i32::MAX], &[0])),
            ("is too large", float(0, &[i32::MAX; 9], &[0; 9])),
            ("a tensor with -1 in its shape", float(0, &[-1], &[1])),
            ("1 axes and 2 strides", float(0, &[1], &[1, 1])),
        ] {
            let error = floats(&pickle).unwrap_err();
            let line = error.to_string();
            assert!(line.contains(wanted) && line.contains("pytorch_model.bin: ") && !line.contains('\n'), "{line}");
            assert!(error.kind().is_bad_input());
        }
        assert!(!Path::new("executed").exists());
    }

    #[test]
    fn what_is_no_torch_file_is_refused_in_one_line() {
        let (folder, path) = torch_file(&state_dict("FloatStorage", "0", 0, &[6], &[1]));
        let whole = std::fs::read(&path).unwrap();
        for (wanted, bytes) in [
            ("before 1.6", &b"\x80\x02\x8a\x0al\xfc\x9cF\xf9 j\xa8P\x19."[..]),
            ("git-lfs", b"version https://git-lfs.github.com/spec/v1\n"),
            ("no zip file", b""),
            ("no zip file", b"hello"),
        ] {
            std::fs::write(&path, bytes).unwrap();
            let line = read(&path).unwrap_err().to_string();
            assert!(line.contains(wanted) && !line.contains('\n'), "{line}");
        }
        for length in 4..whole.len() {
            std::fs::write(&path, &whole[..length]).unwrap();
            assert!(read(&path).unwrap_err().kind().is_bad_input(), "{length} of {} bytes", whole.len());
        }
        assert!(read(&folder.path().join("missing")).unwrap_err().kind().is_bad_input());
    }
}
