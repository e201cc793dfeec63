// What tch does not offer, against the same libtorch: sizes that stay symbolic while tracing, tensors that own their memory,
// the list of operations of a module, saving to a callback, and the peak of live bytes during a forward pass.
// Every function catches C++ exceptions and returns the message (malloc'ed, freed by the caller), or null on success.
#include <torch/csrc/jit/frontend/tracer.h>
#include <torch/csrc/jit/passes/inliner.h>
#include <torch/csrc/jit/serialization/export.h>
#include <torch/script.h>

#include <cstring>

namespace {

using torch::jit::script::Module;
namespace tracer = torch::jit::tracer;

template <class F>
char* guarded(F&& body) noexcept {
  try {
    body();
    return nullptr;
  } catch (const c10::Error& e) {
    return strdup(e.what_without_backtrace());
  } catch (const std::exception& e) {
    return strdup(e.what());
  } catch (...) {
    return strdup("unknown C++ exception");
  }
}

// Counts what the CPU allocator hands out and takes back in this thread. Frees of memory that was there before are counted too
// and make the balance negative, which is why the peak starts at zero.
struct LiveBytes final : c10::MemoryReportingInfoBase {
  int64_t live = 0;
  int64_t peak = 0;
  void reportMemoryUsage(void*, int64_t size, size_t, size_t, c10::Device) override {
    live += size;
    peak = std::max(peak, live);
  }
  bool memoryProfilingEnabled() const override { return true; }
};

using Visit = void (*)(void* context, const char* kind);

void visit_nodes(torch::jit::Block* block, Visit visit, void* context) {
  for (auto* node : block->nodes()) {
    visit(context, node->kind().toQualString());
    for (auto* inner : node->blocks()) visit_nodes(inner, visit, context);
  }
}

}  // namespace

extern "C" {

bool re_is_tracing() { return tracer::isTracing(); }

void re_trace_abandon() { tracer::abandon(); }

// The size of an axis as a tensor that the graph computes from `tensor`. Only while tracing.
char* re_size_of(const at::Tensor* tensor, int64_t axis, at::Tensor** out) {
  return guarded([&] { *out = new at::Tensor(tracer::getSizeOf(*tensor, axis)); });
}

// Makes element `index` of the next operation's integer-list argument `argument` (of length `count`) the recorded `value`.
char* re_stash_size(const char* argument, size_t count, size_t index, const at::Tensor* value) {
  return guarded([&] { tracer::ArgumentStash::stashIntArrayRefElem(argument, count, index, *value); });
}

// Makes the next operation's scalar argument `argument` the recorded `value`, an integer.
char* re_stash_scalar(const char* argument, const at::Tensor* value) {
  return guarded([&] { tracer::ArgumentStash::stashValue(argument, 0, *value, c10::IntType::get()); });
}

// A contiguous CPU tensor over foreign memory; `release(owner)` is called when the last tensor that shares it is gone.
char* re_tensor_over(void* data, const int64_t* sizes, size_t rank, int scalar_type, void* owner, void (*release)(void*),
                     at::Tensor** out) {
  return guarded([&] {
    *out = new at::Tensor(torch::from_blob(data, at::IntArrayRef(sizes, rank), [=](void*) { release(owner); },
                                           at::TensorOptions().dtype(static_cast<at::ScalarType>(scalar_type))));
  });
}

// Calls `visit` with the kind of every node of every method, functions inlined and sub-blocks included: what Elasticsearch looks at.
char* re_module_operations(const Module* module, Visit visit, void* context) {
  return guarded([&] {
    for (const auto& method : module->get_methods()) {
      auto graph = method.graph()->copy();
      torch::jit::Inline(*graph);
      visit_nodes(graph->block(), visit, context);
    }
  });
}

// Writes the module's archive through `write(context, data, size)`, which returns the number of bytes it took.
char* re_module_save(const Module* module, size_t (*write)(void*, const void*, size_t), void* context) {
  return guarded([&] {
    torch::jit::ExportModule(*module, [=](const void* data, size_t size) { return write(context, data, size); });
  });
}

// Runs `forward`; a tuple gives its first element. With `peak`, also the peak of bytes that were live in tensors made on the way.
char* re_module_forward(Module* module, const at::Tensor* const* inputs, size_t count, at::Tensor** out, int64_t* peak) {
  return guarded([&] {
    c10::InferenceMode inference_mode;
    auto live = std::make_shared<LiveBytes>();
    std::unique_ptr<c10::DebugInfoGuard> guard;
    if (peak) guard = std::make_unique<c10::DebugInfoGuard>(c10::DebugInfoKind::PROFILER_STATE, live);
    std::vector<c10::IValue> arguments;
    for (size_t i = 0; i < count; ++i) arguments.emplace_back(*inputs[i]);
    auto result = module->forward(std::move(arguments));
    if (result.isTuple()) {
      TORCH_CHECK(!result.toTupleRef().elements().empty(), "forward returned an empty tuple");
      result = result.toTupleRef().elements()[0];
    }
    TORCH_CHECK(result.isTensor(), "forward returned ", result.tagKind(), ", not a tensor");
    *out = new at::Tensor(result.toTensor());
    if (peak) *peak = live->peak;
  });
}
}
