// The functions of libtorch that tch calls, with the names and parameters that torch-sys declares. torch-sys contains 3,000 of them
// and compiles for minutes, so it is built without its C++ code (the feature doc-only), and this file defines those that are used.
// If the linker reports an undefined symbol atg_NAME, add one line here. The comment at `atg_NAME` in c_generated.rs of torch-sys
// lists the parameters: an optional number is a value and a flag that is not 0 if there is none; a list is an address and a length;
// an optional tensor may be null; a type below 0 means none.
//
// A failed function stores its message, which tch fetches with get_and_reset_last_err.
#include <ATen/Parallel.h>
#include <torch/csrc/jit/frontend/tracer.h>
#include <torch/csrc/jit/passes/fixup_trace_scope_blocks.h>
#include <torch/csrc/jit/passes/normalize_ops.h>
#include <torch/script.h>

#include <cstring>

#include "guarded.h"

namespace {

using at::Scalar;
using at::Tensor;
using torch::jit::script::Module;
namespace tracer = torch::jit::tracer;

thread_local char* last_error = nullptr;

// Runs `body`, and stores the message of its exception. Returns `failed` after an exception.
template <class F, class R = std::invoke_result_t<F>>
R stored(R failed, F&& body) {
  char* const message = guarded([&] { failed = body(); });
  if (message) {
    std::free(last_error);
    last_error = message;
  }
  return failed;
}

template <class F>
void stored(F&& body) {
  stored(0, [&] {
    body();
    return 0;
  });
}

// tch passes -1 for the CPU. This program uses no other device.
at::Device device_of(int device) {
  TORCH_CHECK(device == -1, "the device ", device, " is not supported");
  return at::kCPU;
}

at::TensorOptions options_of(int type, int device) {
  return at::TensorOptions().device(device_of(device)).dtype(static_cast<at::ScalarType>(type));
}

std::optional<at::ScalarType> type_of(int type) {
  return type < 0 ? std::nullopt : std::make_optional(static_cast<at::ScalarType>(type));
}

std::optional<Tensor> optional(const Tensor* tensor) { return tensor ? std::make_optional(*tensor) : std::nullopt; }

template <class T>
std::optional<T> optional(T value, uint8_t is_null) {
  return is_null ? std::nullopt : std::make_optional(value);
}

std::vector<Tensor> tensors(const Tensor* const* data, int length) {
  std::vector<Tensor> all;
  for (int i = 0; i < length; ++i) all.push_back(*data[i]);
  return all;
}

c10::List<std::optional<Tensor>> indices_of(const Tensor* const* data, int length) {
  c10::List<std::optional<Tensor>> all;
  for (int i = 0; i < length; ++i) all.push_back(optional(data[i]));
  return all;
}

void both(Tensor** out, const std::tuple<Tensor, Tensor>& values) {
  out[0] = new Tensor(std::get<0>(values));
  out[1] = new Tensor(std::get<1>(values));
}

template <class T>
T value_at(const Tensor* tensor, const int64_t* index, int length) {
  return stored(T(), [&] {
    auto element = *tensor;
    for (int i = 0; i < length; ++i) element = element[index[i]];
    return element.item<T>();
  });
}

}  // namespace

using T = const Tensor*;
using S = const Scalar*;
#define LIST(name) const int64_t *name, int name##_length
#define VALUES(name) at::IntArrayRef(name, name##_length)
#define OPTIONAL(type, name) type name, uint8_t name##_is_null
#define VALUE(name) optional(name, name##_is_null)
#define TENSORS(name) const Tensor *const *name, int name##_length

// A function that returns one tensor.
#define TENSOR(name, parameters, value) \
  extern "C" void name(Tensor** out, UNWRAP parameters) { stored([&] { *out = new Tensor(value); }); }
#define UNWRAP(...) __VA_ARGS__

TENSOR(atg_abs, (T self), self->abs())
TENSOR(atg_add, (T self, T other), self->add(*other))
TENSOR(atg_add_, (T self, T other), self->add_(*other))
TENSOR(atg_add_scalar, (T self, S other), self->add(*other))
TENSOR(atg_addmm, (T self, T left, T right), self->addmm(*left, *right))
TENSOR(atg_addmm_, (T self, T left, T right), self->addmm_(*left, *right))
TENSOR(atg_all, (T self), self->all())
TENSOR(atg_amax, (T self, LIST(dims), int keep), self->amax(VALUES(dims), keep))
TENSOR(atg_any, (T self), self->any())
TENSOR(atg_any_dim, (T self, int64_t dim, int keep), self->any(dim, keep))
TENSOR(atg_arange, (S end, int type, int device), torch::arange(*end, options_of(type, device)))
TENSOR(atg_arange_start, (S start, S end, int type, int device), torch::arange(*start, *end, options_of(type, device)))
TENSOR(atg_arange_start_step, (S start, S end, S step, int type, int device), torch::arange(*start, *end, *step, options_of(type, device)))
TENSOR(atg_argmax, (T self, OPTIONAL(int64_t, dim), int keep), self->argmax(VALUE(dim), keep))
TENSOR(atg_as_strided, (T self, LIST(size), LIST(stride), OPTIONAL(int64_t, offset)),
       self->as_strided(VALUES(size), VALUES(stride), VALUE(offset)))
TENSOR(atg_cat, (TENSORS(all), int64_t dim), at::cat(tensors(all, all_length), dim))
TENSOR(atg_ceil, (T self), self->ceil())
TENSOR(atg_clamp, (T self, S least, S most), self->clamp(*least, *most))
TENSOR(atg_clamp_max, (T self, S most), self->clamp_max(*most))
TENSOR(atg_clamp_min, (T self, S least), self->clamp_min(*least))
TENSOR(atg_constant_pad_nd, (T self, LIST(padding)), at::constant_pad_nd(*self, VALUES(padding)))
TENSOR(atg_contiguous, (T self), self->contiguous())
TENSOR(atg_conv1d, (T input, T weight, T bias, LIST(stride), LIST(padding), LIST(dilation), int64_t groups),
       at::conv1d(*input, *weight, optional(bias), VALUES(stride), VALUES(padding), VALUES(dilation), groups))
TENSOR(atg_cos, (T self), self->cos())
TENSOR(atg_cumsum, (T self, int64_t dim, int type), self->cumsum(dim, type_of(type)))
TENSOR(atg_div, (T self, T other), self->div(*other))
TENSOR(atg_div_scalar, (T self, S other), self->div(*other))
TENSOR(atg_embedding, (T weight, T indices, int64_t padding, int scale, int sparse), at::embedding(*weight, *indices, padding, scale, sparse))
TENSOR(atg_empty, (LIST(size), int type, int device), torch::empty(VALUES(size), options_of(type, device)))
TENSOR(atg_eq, (T self, S other), self->eq(*other))
TENSOR(atg_eq_tensor, (T self, T other), self->eq(*other))
TENSOR(atg_erf, (T self), self->erf())
TENSOR(atg_exp, (T self), self->exp())
TENSOR(atg_expand, (T self, LIST(size), int implicit), self->expand(VALUES(size), implicit))
TENSOR(atg_expand_as, (T self, T other), self->expand_as(*other))
TENSOR(atg_fill_, (T self, S value), at::fill_(const_cast<Tensor&>(*self), *value))
TENSOR(atg_flatten, (T self, int64_t start, int64_t end), self->flatten(start, end))
TENSOR(atg_flip, (T self, LIST(dims)), self->flip(VALUES(dims)))
TENSOR(atg_floor_divide, (T self, T other), self->floor_divide(*other))
TENSOR(atg_floor_divide_scalar, (T self, S other), self->floor_divide(*other))
TENSOR(atg_full, (LIST(size), S value, int type, int device), torch::full(VALUES(size), *value, options_of(type, device)))
TENSOR(atg_full_like, (T self, S value), torch::full_like(*self, *value))
TENSOR(atg_gather, (T self, int64_t dim, T index, int sparse), self->gather(dim, *index, sparse))
TENSOR(atg_ge, (T self, S other), self->ge(*other))
TENSOR(atg_ge_tensor, (T self, T other), self->ge(*other))
TENSOR(atg_gelu, (T self, const char* form, int length), at::gelu(*self, std::string_view(form, length)))
TENSOR(atg_gt, (T self, S other), self->gt(*other))
TENSOR(atg_gt_tensor, (T self, T other), self->gt(*other))
TENSOR(atg_index, (T self, TENSORS(all)), self->index(indices_of(all, all_length)))
TENSOR(atg_index_fill, (T self, int64_t dim, T index, S value), self->index_fill(dim, *index, *value))
TENSOR(atg_index_put_, (T self, TENSORS(all), T values, int accumulate),
       at::index_put_(const_cast<Tensor&>(*self), indices_of(all, all_length), *values, accumulate))
TENSOR(atg_index_select, (T self, int64_t dim, T index), self->index_select(dim, *index))
TENSOR(atg_isfinite, (T self), self->isfinite())
TENSOR(atg_layer_norm, (T input, LIST(shape), T weight, T bias, double epsilon, int cudnn),
       at::layer_norm(*input, VALUES(shape), optional(weight), optional(bias), epsilon, cudnn))
TENSOR(atg_le_tensor, (T self, T other), self->le(*other))
TENSOR(atg_linear, (T input, T weight, T bias), at::linear(*input, *weight, optional(bias)))
TENSOR(atg_log, (T self), self->log())
TENSOR(atg_logical_and, (T self, T other), self->logical_and(*other))
TENSOR(atg_logical_not, (T self), self->logical_not())
TENSOR(atg_lt, (T self, S other), self->lt(*other))
TENSOR(atg_lt_tensor, (T self, T other), self->lt(*other))
TENSOR(atg_masked_fill, (T self, T mask, S value), self->masked_fill(*mask, *value))
TENSOR(atg_masked_select, (T self, T mask), self->masked_select(*mask))
TENSOR(atg_matmul, (T self, T other), self->matmul(*other))
TENSOR(atg_max, (T self), self->max())
TENSOR(atg_max_other, (T self, T other), at::max(*self, *other))
TENSOR(atg_maximum, (T self, T other), self->maximum(*other))
TENSOR(atg_mean_dim, (T self, LIST(dims), int keep, int type),
       self->mean(dims ? at::OptionalIntArrayRef(VALUES(dims)) : std::nullopt, keep, type_of(type)))
TENSOR(atg_min, (T self), self->min())
TENSOR(atg_min_other, (T self, T other), at::min(*self, *other))
TENSOR(atg_mul, (T self, T other), self->mul(*other))
TENSOR(atg_mul_scalar, (T self, S other), self->mul(*other))
TENSOR(atg_narrow, (T self, int64_t dim, int64_t start, int64_t length), self->narrow(dim, start, length))
TENSOR(atg_ne, (T self, S other), self->ne(*other))
TENSOR(atg_ne_tensor, (T self, T other), self->ne(*other))
TENSOR(atg_neg, (T self), self->neg())
TENSOR(atg_nonzero, (T self), self->nonzero())
TENSOR(atg_norm_scalaropt_dim, (T self, S p, LIST(dims), int keep), self->norm(*p, VALUES(dims), keep))
TENSOR(atg_ones, (LIST(size), int type, int device), torch::ones(VALUES(size), options_of(type, device)))
TENSOR(atg_ones_like, (T self), torch::ones_like(*self))
TENSOR(atg_pad, (T self, LIST(padding), const char* mode, int length, OPTIONAL(double, value)),
       at::pad(*self, VALUES(padding), std::string_view(mode, length), VALUE(value)))
TENSOR(atg_permute, (T self, LIST(dims)), self->permute(VALUES(dims)))
TENSOR(atg_pow, (T self, T exponent), self->pow(*exponent))
TENSOR(atg_pow_scalar, (S self, T exponent), at::pow(*self, *exponent))
TENSOR(atg_pow_tensor_scalar, (T self, S exponent), self->pow(*exponent))
TENSOR(atg_randn, (LIST(size), int type, int device), torch::randn(VALUES(size), options_of(type, device)))
TENSOR(atg_reciprocal, (T self), self->reciprocal())
TENSOR(atg_relu, (T self), self->relu())
TENSOR(atg_remainder, (T self, S other), self->remainder(*other))
TENSOR(atg_repeat, (T self, LIST(counts)), self->repeat(VALUES(counts)))
TENSOR(atg_reshape, (T self, LIST(shape)), self->reshape(VALUES(shape)))
TENSOR(atg_round, (T self), self->round())
TENSOR(atg_rsqrt, (T self), self->rsqrt())
TENSOR(atg_rsub_scalar, (T self, S other), at::rsub(*self, *other))
TENSOR(atg_scaled_dot_product_attention,
       (T query, T key, T value, T mask, double dropout, int causal, OPTIONAL(double, scale), int grouped),
       at::scaled_dot_product_attention(*query, *key, *value, optional(mask), dropout, causal, VALUE(scale), grouped))
TENSOR(atg_select, (T self, int64_t dim, int64_t index), self->select(dim, index))
TENSOR(atg_silu, (T self), at::silu(*self))
TENSOR(atg_sin, (T self), self->sin())
TENSOR(atg_slice, (T self, int64_t dim, OPTIONAL(int64_t, start), OPTIONAL(int64_t, end), int64_t step),
       self->slice(dim, VALUE(start), VALUE(end), step))
TENSOR(atg_slice_copy, (T self, int64_t dim, OPTIONAL(int64_t, start), OPTIONAL(int64_t, end), int64_t step),
       at::slice_copy(*self, dim, VALUE(start), VALUE(end), step))
TENSOR(atg_softmax, (T self, int64_t dim, int type), self->softmax(dim, type_of(type)))
TENSOR(atg_sqrt, (T self), self->sqrt())
TENSOR(atg_squeeze_dim, (T self, int64_t dim), self->squeeze(dim))
TENSOR(atg_stack, (TENSORS(all), int64_t dim), at::stack(tensors(all, all_length), dim))
TENSOR(atg_sub, (T self, T other), self->sub(*other))
TENSOR(atg_sub_scalar, (T self, S other), self->sub(*other))
TENSOR(atg_sum, (T self, int type), self->sum(type_of(type)))
TENSOR(atg_sum_dim_intlist, (T self, LIST(dims), int keep, int type),
       self->sum(dims ? at::OptionalIntArrayRef(VALUES(dims)) : std::nullopt, keep, type_of(type)))
TENSOR(atg_t, (T self), self->t())
TENSOR(atg_tanh, (T self), self->tanh())
TENSOR(atg_to, (T self, int device), self->to(device_of(device)))
TENSOR(atg_totype, (T self, int type), self->toType(static_cast<at::ScalarType>(type)))
TENSOR(atg_transpose, (T self, int64_t first, int64_t second), self->transpose(first, second))
TENSOR(atg_triu, (T self, int64_t diagonal), self->triu(diagonal))
TENSOR(atg_unsqueeze, (T self, int64_t dim), self->unsqueeze(dim))
TENSOR(atg_view, (T self, LIST(size)), self->view(VALUES(size)))
TENSOR(atg_where_self, (T condition, T self, T other), at::where(*condition, *self, *other))
TENSOR(atg_zeros, (LIST(size), int type, int device), torch::zeros(VALUES(size), options_of(type, device)))
TENSOR(atg_zeros_like, (T self), torch::zeros_like(*self))

extern "C" {

// The pending message of this thread, which the caller frees, or null.
char* get_and_reset_last_err() { return std::exchange(last_error, nullptr); }

int atg_allclose(T self, T other, double relative, double absolute, int equal_nan) {
  return stored(0, [&] { return static_cast<int>(at::allclose(*self, *other, relative, absolute, equal_nan)); });
}

// A list of tensors that ends with null.
Tensor** atg_chunk(T self, int64_t chunks, int64_t dim) {
  return stored(static_cast<Tensor**>(nullptr), [&] {
    const auto all = self->chunk(chunks, dim);
    auto* const list = static_cast<Tensor**>(std::malloc((all.size() + 1) * sizeof(Tensor*)));
    for (size_t i = 0; i < all.size(); ++i) list[i] = new Tensor(all[i]);
    list[all.size()] = nullptr;
    return list;
  });
}

// The greatest elements of a dimension, and their positions.
void atg_max_dim(Tensor** out, T self, int64_t dim, int keep) {
  stored([&] { both(out, self->max(dim, keep)); });
}

// The sorted elements of a dimension, and their positions.
void atg_sort(Tensor** out, T self, int64_t dim, int descending) {
  stored([&] { both(out, self->sort(dim, static_cast<bool>(descending))); });
}

// The greatest or least elements of a dimension, and their positions.
void atg_topk(Tensor** out, T self, int64_t count, int64_t dim, int largest, int sorted) {
  stored([&] { both(out, self->topk(count, dim, largest, sorted)); });
}

Tensor* at_new_tensor() {
  return stored(static_cast<Tensor*>(nullptr), [] { return new Tensor(); });
}

Tensor* at_shallow_clone(T tensor) {
  return stored(static_cast<Tensor*>(nullptr), [&] { return new Tensor(*tensor); });
}

void at_free(Tensor* tensor) { delete tensor; }

Tensor* at_get(T tensor, int index) {
  return stored(static_cast<Tensor*>(nullptr), [&] { return new Tensor((*tensor)[index]); });
}

Tensor* at_tensor_of_data(const void* data, const int64_t* dims, size_t rank, size_t element_size, int type) {
  return stored(static_cast<Tensor*>(nullptr), [&] {
    const auto tensor = torch::zeros(at::IntArrayRef(dims, rank), static_cast<at::ScalarType>(type));
    TORCH_CHECK(element_size == tensor.element_size(), "the elements have ", element_size, " bytes, not ", tensor.element_size());
    std::memcpy(tensor.data_ptr(), data, tensor.nbytes());
    return new Tensor(tensor);
  });
}

void at_copy_data(T tensor, void* into, size_t count, size_t element_size) {
  stored([&] {
    TORCH_CHECK(element_size == tensor->element_size(), "the elements have ", tensor->element_size(), " bytes, not ", element_size);
    TORCH_CHECK(count <= static_cast<size_t>(tensor->numel()), "the tensor has ", tensor->numel(), " elements, not ", count);
    std::memcpy(into, tensor->contiguous().data_ptr(), count * element_size);
  });
}

int at_defined(T tensor) { return tensor->defined(); }

int at_is_sparse(T tensor) {
  return stored(-1, [&] { return static_cast<int>(tensor->is_sparse()); });
}

int at_is_contiguous(T tensor) {
  return stored(-1, [&] { return static_cast<int>(tensor->is_contiguous()); });
}

// The device as tch numbers it.
int at_device(T tensor) {
  return stored(-1, [&] {
    TORCH_CHECK(tensor->device() == at::kCPU, "the device ", tensor->device(), " is not supported");
    return -1;
  });
}

void* at_data_ptr(T tensor) {
  return stored(static_cast<void*>(nullptr), [&] { return tensor->data_ptr(); });
}

size_t at_dim(T tensor) {
  return stored(static_cast<size_t>(-1), [&] { return static_cast<size_t>(tensor->dim()); });
}

void at_shape(T tensor, int64_t* dims) {
  stored([&] { std::copy(tensor->sizes().begin(), tensor->sizes().end(), dims); });
}

int at_scalar_type(T tensor) {
  return stored(-1, [&] { return static_cast<int>(tensor->scalar_type()); });
}

double at_double_value_at_indexes(T tensor, const int64_t* index, int length) { return value_at<double>(tensor, index, length); }

int64_t at_int64_value_at_indexes(T tensor, const int64_t* index, int length) { return value_at<int64_t>(tensor, index, length); }

int at_get_num_threads() {
  return stored(-1, [] { return at::get_num_threads(); });
}

void at_set_num_threads(int count) {
  stored([&] { at::set_num_threads(count); });
}

// Returns whether gradients were recorded before.
int at_grad_set_enabled(int enabled) {
  return stored(-1, [&] {
    const bool before = at::GradMode::is_enabled();
    at::GradMode::set_enabled(enabled);
    return static_cast<int>(before);
  });
}

Scalar* ats_int(int64_t value) { return new Scalar(value); }

Scalar* ats_float(double value) { return new Scalar(value); }

void ats_free(Scalar* scalar) { delete scalar; }

Module* atm_load(const char* path) {
  return stored(static_cast<Module*>(nullptr), [&] { return new Module(torch::jit::load(path)); });
}

void atm_free(Module* module) { delete module; }

// Begins to record operations on this thread. `inputs` become the inputs of the graph, after `self`.
Module* atm_create_for_tracing(const char* name, Tensor* const* inputs, int count) {
  auto* const module = stored(static_cast<Module*>(nullptr), [&] {
    TORCH_CHECK(!tracer::isTracing(), "this thread already records operations");
    Module module(name);
    auto state = std::make_shared<tracer::TracingState>();
    tracer::setTracingState(state);
    state->graph->insertInput(0, "self")->setType(module._ivalue()->type());
    for (int i = 0; i < count; ++i) {
      auto* const value = state->graph->addInput();
      value->setType(c10::TensorType::get());
      state->setValue(*inputs[i], value);
    }
    return new Module(module);
  });
  if (!module) tracer::abandon();
  return module;
}

// Ends the recording, which becomes the method `name` of the module.
void atm_end_tracing(Module* module, const char* name, const Tensor* const* outputs, int count) {
  stored([&] {
    const auto state = tracer::getTracingState();
    TORCH_CHECK(state, "this thread does not record operations");
    for (int i = 0; i < count; ++i) state->graph->registerOutput(state->getOutput(*outputs[i], i));
    torch::jit::FixupTraceScopeBlocks(state->graph, module);
    torch::jit::NormalizeOps(state->graph);
    tracer::setTracingState(nullptr);
    module->type()->addMethod(module->_ivalue()->compilation_unit()->create_function(name, state->graph));
  });
}
}
