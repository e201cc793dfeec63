//! Safe functions for libtorch's tracer, exporter and allocator hooks (`native.cpp`), for torch-sys' raw module functions, and for loading
//! shared libraries. Only this module and `mapped_file.rs` contain unsafe code.

use std::ffi::{CStr, CString, c_char, c_int, c_void};
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicPtr, Ordering};

use libc::size_t;
use tch::{Kind, Tensor};
use torch_sys::{C_tensor, CModule_};

use super::TorchError;
use super::archive_writer::Written;
use super::library;
use super::quantized_layers::Replacement;
use crate::checkpoint::StoredTensor;
use crate::checkpoint::safetensors::Slice;
use crate::mapped_file::MappedFile;
use crate::segmented_bytes::SegmentedBytes;

include!(concat!(env!("OUT_DIR"), "/functions.rs"));

unsafe extern "C" {
    /// The addresses to which the entry points of calls.S jump.
    static re_slots: [AtomicPtr<c_void>; FUNCTIONS];
    fn re_is_tracing() -> bool;
    fn re_trace_abandon();
    fn re_size_of(tensor: *const C_tensor, axis: i64, out: *mut *mut C_tensor) -> *mut c_char;
    fn re_stash_size(
        argument: *const c_char,
        count: size_t,
        index: size_t,
        value: *const C_tensor,
    ) -> *mut c_char;
    fn re_stash_scalar(argument: *const c_char, value: *const C_tensor) -> *mut c_char;
    fn re_tensor_over(
        data: *mut c_void,
        sizes: *const i64,
        rank: size_t,
        scalar_type: c_int,
        owner: *mut c_void,
        release: extern "C" fn(*mut c_void),
        out: *mut *mut C_tensor,
    ) -> *mut c_char;
    fn re_module_operations(
        module: *const CModule_,
        visit: extern "C" fn(*mut c_void, *const c_char),
        context: *mut c_void,
    ) -> *mut c_char;
    fn re_module_quantize(
        module: *mut CModule_,
        quantized: *mut size_t,
        kept: *mut size_t,
    ) -> *mut c_char;
    fn re_module_replace_layers(
        module: *mut CModule_,
        plan: extern "C" fn(*mut c_void, *const LayerView, *mut RawReplacement) -> bool,
        context: *mut c_void,
        others: *mut size_t,
    ) -> *mut c_char;
    fn re_module_observe(module: *mut CModule_) -> *mut c_char;
    fn re_module_load(
        size: size_t,
        from: extern "C" fn(*const c_void, size_t, *mut size_t) -> *const c_char,
        owner: *mut c_void,
        release: extern "C" fn(*mut c_void),
        out: *mut *mut CModule_,
        stored: *mut u64,
    ) -> *mut c_char;
    fn re_module_save(
        module: *const CModule_,
        write: extern "C" fn(*mut c_void, *const c_void, size_t, *mut Storage) -> size_t,
        context: *mut c_void,
    ) -> *mut c_char;
    fn re_storage_free(storage: *mut Storage);
    fn re_module_forward(
        module: *mut CModule_,
        inputs: *const *const C_tensor,
        count: size_t,
        optimize: bool,
        out: *mut *mut C_tensor,
    ) -> *mut c_char;
    fn re_module_peak(
        module: *mut CModule_,
        inputs: *const *const C_tensor,
        count: size_t,
        peak: *mut i64,
    ) -> *mut c_char;
    fn re_code_check(text: *const c_char, size: size_t) -> *mut c_char;
    fn re_archive_agrees(
        data: *const c_void,
        size: size_t,
        records: *const Record,
        count: size_t,
    ) -> *mut c_char;
    fn re_archive_load(data: *const c_void, size: size_t, out: *mut *mut CModule_) -> *mut c_char;
    fn re_module_nodes(module: *const CModule_, limit: u64, out: *mut u64) -> *mut c_char;
    fn re_module_signature(
        module: *const CModule_,
        visit: extern "C" fn(*mut c_void, *const c_char, *const c_char, bool, bool),
        context: *mut c_void,
    ) -> *mut c_char;
}

/// Position of a record in an archive, for [`archive_agrees`].
#[repr(C)]
struct Record {
    name: *const c_char,
    offset: u64,
    size: u64,
}

/// A shared library, which stays loaded until the process ends.
pub(super) struct SharedLibrary(*mut c_void);

impl SharedLibrary {
    /// Loads a library. The error is the reason of the dynamic loader.
    pub(super) fn open(path: &Path) -> Result<Self, String> {
        let name =
            CString::new(path.as_os_str().as_encoded_bytes()).map_err(|error| error.to_string())?;
        // SAFETY: the name is NUL-terminated. The libraries are this program's own and libtorch, whose constructors may run on any thread.
        let library = unsafe { libc::dlopen(name.as_ptr(), libc::RTLD_NOW | libc::RTLD_LOCAL) };
        if !library.is_null() {
            return Ok(Self(library));
        }
        // SAFETY: returns null or a string that lives until this thread calls another function of the loader.
        let reason = unsafe { libc::dlerror() };
        if reason.is_null() {
            return Err("unknown reason".into());
        }
        // SAFETY: as above.
        Err(unsafe { CStr::from_ptr(reason) }.to_string_lossy().into_owned())
    }

    /// Connects the entry points of calls.S to the functions of this library, which build.rs linked.
    pub(super) fn connect(self) -> Result<(), String> {
        // SAFETY: the library is loaded, and the name is NUL-terminated.
        let table = unsafe { libc::dlsym(self.0, c"rust_eland_functions".as_ptr()) };
        if table.is_null() {
            return Err("the program's own library lacks its functions".into());
        }
        // SAFETY: the build script writes FUNCTIONS addresses to the table, which is constant and stays loaded.
        let functions = unsafe { &*table.cast::<[*mut c_void; FUNCTIONS]>() };
        // SAFETY: calls.S defines as many slots, and reads them as whole words.
        let slots = unsafe { &re_slots };
        for (slot, function) in slots.iter().zip(functions) {
            slot.store(*function, Ordering::Release);
        }
        Ok(())
    }
}

/// Loads libtorch when calls.S is called before [`SharedLibrary::connect`].
#[unsafe(no_mangle)]
extern "C" fn re_load() {
    library::load_for_a_call();
}

/// An unnamed file in memory.
#[cfg(target_os = "linux")]
pub(super) fn file_in_memory() -> std::io::Result<std::fs::File> {
    use std::os::fd::FromRawFd;

    // SAFETY: the name is NUL-terminated.
    let descriptor = unsafe { libc::memfd_create(c"rust_eland_torch".as_ptr(), libc::MFD_CLOEXEC) };
    if descriptor < 0 {
        return Err(std::io::Error::last_os_error());
    }
    // SAFETY: the descriptor is new and belongs to nobody else.
    Ok(unsafe { std::fs::File::from_raw_fd(descriptor) })
}

/// Sets a variable of the environment. Call it only while the process has one thread.
pub(super) fn set_variable(name: &str, value: &str) {
    // SAFETY: the caller checks that no other thread reads the environment.
    unsafe { std::env::set_var(name, value) };
}

/// A layer of a graph, for [`RawModule::replace_layers`].
#[repr(C)]
struct LayerView {
    weight: *const C_tensor,
    is_linear: bool,
}

/// Tensors that replace a layer's weights. Each pointer is null or owns its tensor.
#[repr(C)]
struct RawReplacement {
    weight: *mut C_tensor,
    scales: *mut C_tensor,
    factors: *mut C_tensor,
    columns: *mut C_tensor,
    floating: *mut C_tensor,
}

/// A pointer that owns a copy of a tensor's handle.
fn owned(tensor: &Tensor) -> *mut C_tensor {
    let copy = std::mem::ManuallyDrop::new(tensor.shallow_clone());
    copy.as_ptr().cast_mut()
}

/// Converts the message that a native function returns to a result. Null means success.
fn check(message: *mut c_char) -> Result<(), TorchError> {
    if message.is_null() {
        return Ok(());
    }
    // SAFETY: native.cpp returns a NUL-terminated string from strdup, which the caller owns.
    let text = unsafe { CStr::from_ptr(message).to_string_lossy().into_owned() };
    // SAFETY: the string comes from strdup, and no reference to it remains.
    unsafe { libc::free(message.cast()) };
    Err(TorchError::Native(text))
}

/// Converts torch-sys' pending error, if there is one, to a result.
fn check_torch_sys() -> Result<(), TorchError> {
    // SAFETY: returns null or a malloc'ed string that the caller owns, as `check` requires.
    check(unsafe { torch_sys::get_and_reset_last_err() })
}

/// Runs a native function that creates a tensor.
fn new_tensor(make: impl FnOnce(*mut *mut C_tensor) -> *mut c_char) -> Result<Tensor, TorchError> {
    let mut out = std::ptr::null_mut();
    check(make(&mut out))?;
    // SAFETY: on success `out` is a tensor created with `new`, which `Tensor` deletes.
    Ok(unsafe { Tensor::from_ptr(out) })
}

/// Whether operations on this thread are being recorded.
pub(super) fn is_tracing() -> bool {
    // SAFETY: reads a thread-local.
    unsafe { re_is_tracing() }
}

/// Size of `axis` as a recorded scalar tensor. Call it only while tracing.
pub(super) fn size_of(tensor: &Tensor, axis: i64) -> Result<Tensor, TorchError> {
    // SAFETY: `tensor` is alive; the function checks the axis.
    new_tensor(|out| unsafe { re_size_of(tensor.as_ptr(), axis, out) })
}

/// Replaces element `index` of the next operation's list argument `argument` by the recorded `value`.
pub(super) fn stash_size(
    argument: &CStr,
    count: usize,
    index: usize,
    value: &Tensor,
) -> Result<(), TorchError> {
    // SAFETY: all pointers are alive for the call.
    check(unsafe { re_stash_size(argument.as_ptr(), count, index, value.as_ptr()) })
}

/// Replaces the next operation's scalar argument `argument` by the recorded `value`.
pub(super) fn stash_scalar(argument: &CStr, value: &Tensor) -> Result<(), TorchError> {
    // SAFETY: all pointers are alive for the call.
    check(unsafe { re_stash_scalar(argument.as_ptr(), value.as_ptr()) })
}

/// Drops an owner that was passed to libtorch.
extern "C" fn release<T>(owner: *mut c_void) {
    // SAFETY: `owner` came from Arc::into_raw of an Arc<T> below and is released once.
    drop(unsafe { Arc::from_raw(owner.cast::<T>()) });
}

/// A stored tensor in float32, to be captured as a constant of a graph. A contiguous float32 tensor stays in the mapped file; any
/// other is copied and converted.
///
/// # Errors
/// [`TorchError`] if libtorch cannot create the tensor.
pub(crate) fn constant(stored: &StoredTensor) -> Result<Tensor, TorchError> {
    let Slice { dtype, shape, offset, length } = &stored.slice;
    let kind = Kind::from(*dtype);
    let elements = [i64::try_from(length / dtype.size()).unwrap_or(i64::MAX)];
    let spanned = if stored.strides.is_some() { &elements[..] } else { shape };
    // SAFETY: this crate applies in-place operations to computed tensors only, which the test
    // `in_place_operations_write_to_computed_tensors_only` checks.
    let tensor = match unsafe { tensor_over(&stored.file, *offset, kind, spanned) } {
        Ok(tensor) => tensor,
        // Old files are not padded, so their tensors can lie at unaligned addresses.
        Err(_) => {
            let end = offset.saturating_add(*length);
            let bytes = stored.file.bytes().get(*offset..end).unwrap_or_default();
            Tensor::f_from_data_size(bytes, spanned, kind)?
        }
    };
    let tensor = match &stored.strides {
        None => tensor,
        Some(strides) => tensor.f_as_strided(shape, strides, 0)?.f_contiguous()?,
    };
    Ok(if kind == Kind::Float { tensor } else { tensor.f_to_kind(Kind::Float)? })
}

/// A tensor of `shape` whose memory is the mapped file from `offset` on. The tensor keeps the map alive.
///
/// # Safety
/// The map is read-only: no in-place operation may be applied to the tensor or to a view of it.
///
/// # Errors
/// [`TorchError::Native`] if the shape exceeds the file, the offset is not a multiple of the element size, or tensors of `kind`
/// cannot be mapped.
unsafe fn tensor_over(
    file: &Arc<MappedFile>,
    offset: usize,
    kind: Kind,
    shape: &[i64],
) -> Result<Tensor, TorchError> {
    let (scalar_type, size) = match kind {
        Kind::Float => (6, 4),
        Kind::Half => (5, 2),
        Kind::BFloat16 => (15, 2),
        Kind::Double => (7, 8),
        Kind::Int64 => (4, 8),
        other => {
            return Err(TorchError::Native(format!("cannot map tensors of the type {other:?}")));
        }
    };
    let bytes = shape
        .iter()
        .try_fold(size, |all: usize, &n| all.checked_mul(usize::try_from(n).ok()?))
        .and_then(|length| file.bytes().get(offset..offset.checked_add(length)?))
        .ok_or_else(|| TorchError::Native("a tensor beyond the end of its file".into()))?;
    let data = bytes.as_ptr();
    if data.align_offset(size) != 0 {
        return Err(TorchError::Native("a tensor that is not aligned to its element size".into()));
    }
    let owner = Arc::into_raw(Arc::clone(file)).cast_mut().cast::<c_void>();
    let tensor = new_tensor(|out| {
        // SAFETY: `data` holds the whole shape (checked) and lives until `release` drops the owner.
        unsafe {
            re_tensor_over(
                data.cast_mut().cast(),
                shape.as_ptr(),
                shape.len(),
                scalar_type,
                owner,
                release::<MappedFile>,
                out,
            )
        }
    });
    if tensor.is_err() {
        release::<MappedFile>(owner);
    }
    tensor
}

/// Parses a file of TorchScript code and rejects code that libtorch would run while loading it.
pub(super) fn code_check(text: &[u8]) -> Result<(), TorchError> {
    // SAFETY: the text lives for the call, and its length is passed.
    check(unsafe { re_code_check(text.as_ptr().cast(), text.len()) })
}

/// Checks that libtorch finds these records, each with its offset and length, and no others in an archive.
pub(super) fn archive_agrees(
    archive: &[u8],
    records: &[(CString, usize, usize)],
) -> Result<(), TorchError> {
    let records: Vec<Record> = records
        .iter()
        .map(|(name, offset, size)| Record {
            name: name.as_ptr(),
            offset: *offset as u64,
            size: *size as u64,
        })
        .collect();
    // SAFETY: the archive and the records, with their names, live for the call.
    check(unsafe {
        re_archive_agrees(archive.as_ptr().cast(), archive.len(), records.as_ptr(), records.len())
    })
}

/// A `c10::Storage`.
#[repr(C)]
struct Storage {
    _opaque: [u8; 0],
}

/// Bytes that libtorch has written. With a storage, the bytes live as long as the storage; otherwise they live only for one call.
struct Held {
    data: *const u8,
    size: usize,
    storage: *mut Storage,
}

// SAFETY: the storage's reference count is atomic, and no code writes to the memory of a constant.
unsafe impl Send for Held {}
// SAFETY: the storage's reference count is atomic, and no code writes to the memory of a constant.
unsafe impl Sync for Held {}

impl AsRef<[u8]> for Held {
    fn as_ref(&self) -> &[u8] {
        // SAFETY: libtorch passes `size` readable bytes, which the storage keeps alive. Without a storage, the value lives only for
        // one call.
        unsafe { std::slice::from_raw_parts(self.data, self.size) }
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        // SAFETY: `re_module_save` transferred ownership, and the storage is freed once. Null is allowed.
        unsafe { re_storage_free(self.storage) }
    }
}

/// An owned `torch::jit::Module`.
#[derive(Debug)]
pub(super) struct RawModule(*mut CModule_);

// SAFETY: a torch::jit::Module is a handle to reference-counted data; `forward` of a module without mutable state may run on any
// thread.
unsafe impl Send for RawModule {}
// SAFETY: methods that change the module need `&mut`. The others run or read the graph of `forward`, which several threads may do
// (PyTorch's documentation, "CPU threading and TorchScript inference"); libtorch locks the creation of execution plans.
unsafe impl Sync for RawModule {}

impl Drop for RawModule {
    fn drop(&mut self) {
        // SAFETY: made by torch-sys with `new`, freed once.
        unsafe { torch_sys::atm_free(self.0) }
    }
}

impl RawModule {
    fn from_torch_sys(module: *mut CModule_) -> Result<Self, TorchError> {
        check_torch_sys()?;
        if module.is_null() {
            return Err(TorchError::Native("libtorch returned no module and no reason".into()));
        }
        Ok(Self(module))
    }

    /// Traces `forward` on `inputs`, as the module's method `forward`.
    pub(super) fn trace<E: From<TorchError>>(
        inputs: &[Tensor],
        forward: impl FnOnce(&[Tensor]) -> Result<Tensor, E>,
    ) -> Result<Self, E> {
        let mut raw: Vec<_> = inputs.iter().map(|t| t.as_ptr().cast_mut()).collect();
        // SAFETY: the name is NUL-terminated; `raw` holds live tensors for the call.
        let module = unsafe {
            torch_sys::atm_create_for_tracing(
                c"Model".as_ptr().cast_mut(),
                raw.as_mut_ptr(),
                raw.len() as c_int,
            )
        };
        let module = Self::from_torch_sys(module).map_err(E::from)?;
        // A panic must not leave this thread in the recording state.
        let output = match catch_unwind(AssertUnwindSafe(|| forward(inputs))) {
            Ok(Ok(output)) => output,
            failed => {
                // SAFETY: resets the thread's recording state.
                unsafe { re_trace_abandon() };
                match failed {
                    Ok(result) => return result.map(|_| module),
                    Err(panic) => resume_unwind(panic),
                }
            }
        };
        let mut outputs = [output.as_ptr().cast_mut()];
        // SAFETY: the module is alive and the thread is tracing; the name and the outputs live for the call.
        unsafe {
            torch_sys::atm_end_tracing(
                module.0,
                c"forward".as_ptr().cast_mut(),
                outputs.as_mut_ptr(),
                1,
            );
        }
        check_torch_sys().map_err(|error| {
            // SAFETY: the module is alive. A failed end leaves the thread in the recording state, which this call resets.
            unsafe { re_trace_abandon() };
            E::from(error)
        })?;
        Ok(module)
    }

    pub(super) fn load(path: &Path) -> Result<Self, TorchError> {
        let name = CString::new(path.as_os_str().as_encoded_bytes())
            .map_err(|_| TorchError::Native(format!("{path:?} contains a NUL byte")))?;
        // SAFETY: the name is NUL-terminated and lives for the call.
        Self::from_torch_sys(unsafe { torch_sys::atm_load(name.as_ptr().cast_mut()) })
    }

    /// Loads an archive without copying its tensors. Also returns the total size of the tensors in bytes.
    pub(super) fn load_mapped(archive: Arc<SegmentedBytes>) -> Result<(Self, u64), TorchError> {
        extern "C" fn from(owner: *const c_void, at: size_t, length: *mut size_t) -> *const c_char {
            // SAFETY: `owner` is the Arc<SegmentedBytes> below, which lives until `release`; `length` is a variable of the caller's.
            let bytes = unsafe { (*owner.cast::<SegmentedBytes>()).at(at) };
            // SAFETY: as above.
            unsafe { *length = bytes.len() };
            bytes.as_ptr().cast()
        }
        let size = archive.len();
        let owner = Arc::into_raw(archive).cast_mut().cast::<c_void>();
        let (mut module, mut stored) = (std::ptr::null_mut(), 0);
        // SAFETY: the bytes live until `release` drops their owner, which the function calls in every case; the other arguments
        // live for the call.
        check(unsafe {
            re_module_load(size, from, owner, release::<SegmentedBytes>, &mut module, &mut stored)
        })?;
        Ok((Self(module), stored))
    }

    /// Replaces linear layers by layers with 8-bit weights. Returns the numbers of replaced and of unchanged layers.
    pub(super) fn quantize(&mut self) -> Result<(usize, usize), TorchError> {
        let (mut quantized, mut kept) = (0, 0);
        // SAFETY: the module and the counts live for the call.
        check(unsafe { re_module_quantize(self.0, &mut quantized, &mut kept) })?;
        Ok((quantized, kept))
    }

    /// Calls `plan` for each linear layer (true) and lookup table (false) with constant float32 weights, and replaces the layers for
    /// which it returns a replacement. Returns the number of linear layers and convolutions that cannot be replaced.
    pub(super) fn replace_layers<E: From<TorchError>>(
        &mut self,
        plan: impl FnMut(&Tensor, bool) -> Result<Option<Replacement>, E>,
    ) -> Result<usize, E> {
        struct Context<F, E> {
            plan: F,
            failed: Option<E>,
        }
        extern "C" fn call<F, E>(
            context: *mut c_void,
            layer: *const LayerView,
            out: *mut RawReplacement,
        ) -> bool
        where
            F: FnMut(&Tensor, bool) -> Result<Option<Replacement>, E>,
        {
            // SAFETY: `context` is the variable below; `layer` and `out` live for the call.
            let (context, layer, out) =
                unsafe { (&mut *context.cast::<Context<F, E>>(), &*layer, &mut *out) };
            // SAFETY: the weight lives for the call. The clone has a handle of its own.
            let weight = unsafe { Tensor::clone_from_ptr(layer.weight.cast_mut()) };
            match (context.plan)(&weight, layer.is_linear) {
                Ok(None) => {}
                Ok(Some(Replacement::Table { weight, scales })) => {
                    out.weight = owned(&weight);
                    out.scales = scales.as_ref().map_or(std::ptr::null_mut(), owned);
                }
                Ok(Some(Replacement::Linear { weight, scales, factors, floating })) => {
                    (out.weight, out.scales) = (owned(&weight), owned(&scales));
                    out.factors = factors.as_ref().map_or(std::ptr::null_mut(), owned);
                    if let Some((columns, weight)) = &floating {
                        (out.columns, out.floating) = (owned(columns), owned(weight));
                    }
                }
                Err(error) => {
                    context.failed = Some(error);
                    return false;
                }
            }
            true
        }
        fn entry<F, E>(
            _: &Context<F, E>,
        ) -> extern "C" fn(*mut c_void, *const LayerView, *mut RawReplacement) -> bool
        where
            F: FnMut(&Tensor, bool) -> Result<Option<Replacement>, E>,
        {
            call::<F, E>
        }
        let mut context = Context { plan, failed: None };
        let (plan, mut others) = (entry(&context), 0);
        // SAFETY: the module, the context and the count live for the call; the receiver of a replacement owns its tensors.
        check(unsafe {
            re_module_replace_layers(
                self.0,
                plan,
                std::ptr::from_mut(&mut context).cast::<c_void>(),
                &mut others,
            )
        })?;
        context.failed.map_or(Ok(others), Err)
    }

    /// Changes `forward` to return the largest absolute value of each input channel of each linear layer that can be replaced.
    pub(super) fn observe(&mut self) -> Result<(), TorchError> {
        // SAFETY: the module lives for the call.
        check(unsafe { re_module_observe(self.0) })
    }

    /// Loads an archive from memory.
    pub(super) fn load_bytes(archive: &[u8]) -> Result<Self, TorchError> {
        let mut out = std::ptr::null_mut();
        // SAFETY: the archive lives for the call; afterwards, libtorch only has copies of its tensors.
        check(unsafe { re_archive_load(archive.as_ptr().cast(), archive.len(), &mut out) })?;
        Self::from_torch_sys(out)
    }

    /// Number of nodes of all methods with functions inlined, or `limit` if there are more.
    pub(super) fn nodes(&self, limit: u64) -> Result<u64, TorchError> {
        let mut count = 0;
        // SAFETY: the module and the count live for the call.
        check(unsafe { re_module_nodes(self.0, limit, &mut count) })?;
        Ok(count)
    }

    /// Calls `visit` for each parameter of `forward` with its name, its type, whether it accepts a tensor and whether it is
    /// optional. The last call has an empty name and the return type.
    pub(super) fn signature(
        &self,
        mut visit: impl FnMut(&str, &str, bool, bool),
    ) -> Result<(), TorchError> {
        type Visit<'a> = &'a mut dyn FnMut(&str, &str, bool, bool);
        extern "C" fn call(
            context: *mut c_void,
            name: *const c_char,
            kind: *const c_char,
            tensor: bool,
            optional: bool,
        ) {
            // SAFETY: `context` is the `&mut Visit` below, the others NUL-terminated strings; all live for the call.
            let (visit, name, kind) = unsafe {
                (&mut *context.cast::<Visit<'_>>(), CStr::from_ptr(name), CStr::from_ptr(kind))
            };
            visit(&name.to_string_lossy(), &kind.to_string_lossy(), tensor, optional);
        }
        let mut visit: Visit<'_> = &mut visit;
        // SAFETY: the module and `visit` live for the call; `visit` only collects and does not unwind.
        check(unsafe {
            re_module_signature(self.0, call, std::ptr::from_mut(&mut visit).cast::<c_void>())
        })
    }

    pub(super) fn operations(&self, mut visit: impl FnMut(&str)) -> Result<(), TorchError> {
        extern "C" fn call(context: *mut c_void, kind: *const c_char) {
            // SAFETY: `context` is the `&mut &mut dyn FnMut` below, `kind` a NUL-terminated string; both live for the call.
            let (visit, kind) =
                unsafe { (&mut *context.cast::<&mut dyn FnMut(&str)>(), CStr::from_ptr(kind)) };
            visit(&kind.to_string_lossy());
        }
        let mut visit: &mut dyn FnMut(&str) = &mut visit;
        // SAFETY: the module and `visit` live for the call; `visit` only counts and does not unwind.
        check(unsafe {
            re_module_operations(self.0, call, std::ptr::from_mut(&mut visit).cast::<c_void>())
        })
    }

    /// Parts of the archive, in the order in which libtorch writes them, without checksums.
    pub(super) fn save(&self) -> Result<Vec<Written>, TorchError> {
        extern "C" fn write(
            context: *mut c_void,
            data: *const c_void,
            size: size_t,
            storage: *mut Storage,
        ) -> size_t {
            // SAFETY: `context` is the list below.
            let written = unsafe { &mut *context.cast::<Vec<Written>>() };
            let held = Held { data: data.cast(), size, storage };
            if size > 0 {
                written.push(if storage.is_null() {
                    // The bytes belong to the caller and are freed after the call.
                    Written::Own(held.as_ref().to_vec())
                } else {
                    Written::Held(Box::new(held))
                });
            }
            size
        }
        let mut written: Vec<Written> = Vec::new();
        // SAFETY: the module and the list live for the call; `write` does not unwind.
        check(unsafe {
            re_module_save(self.0, write, std::ptr::from_mut(&mut written).cast::<c_void>())
        })?;
        Ok(written)
    }

    /// Runs `forward` in inference mode. With `optimize`, libtorch optimizes the graph for later passes.
    pub(super) fn forward(&self, inputs: &[Tensor], optimize: bool) -> Result<Tensor, TorchError> {
        let inputs: Vec<_> = inputs.iter().map(Tensor::as_ptr).collect();
        // SAFETY: module and inputs live for the call.
        new_tensor(|out| unsafe {
            re_module_forward(self.0, inputs.as_ptr(), inputs.len(), optimize, out)
        })
    }

    /// Peak size in bytes of the live tensors that `forward` creates.
    pub(super) fn peak(&self, inputs: &[Tensor]) -> Result<i64, TorchError> {
        let inputs: Vec<_> = inputs.iter().map(Tensor::as_ptr).collect();
        let mut peak = 0;
        // SAFETY: module, inputs and peak live for the call.
        check(unsafe { re_module_peak(self.0, inputs.as_ptr(), inputs.len(), &mut peak) })?;
        Ok(peak)
    }
}
