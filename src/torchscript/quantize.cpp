// Replacement of layers of a graph by layers with quantized weights, which the caller computes, and observation of the inputs of
// linear layers. As in native.cpp, every function catches C++ exceptions and returns the message (malloc'ed, freed by the caller), or
// null.
#include <ATen/native/quantized/PackedParams.h>
#include <torch/csrc/jit/ir/constants.h>
#include <torch/csrc/jit/passes/dead_code_elimination.h>
#include <torch/script.h>

#include "guarded.h"

namespace {

namespace jit = torch::jit;
using Packed = c10::intrusive_ptr<LinearPackedParamsBase>;

// A linear layer or a lookup table with constant float32 weights, and the nodes that use it.
struct Layer {
  at::Tensor weight;
  std::optional<at::Tensor> bias;
  bool is_linear;
  std::vector<jit::Node*> calls;
};

std::optional<at::Tensor> constant_tensor(const jit::Value* value) {
  const auto constant = jit::toIValue(value);
  if (!constant || !constant->isTensor()) return std::nullopt;
  return constant->toTensor();
}

// The layers of a graph in the order of their first use. A layer that is used several times is returned once. Counts the linear layers
// with other weights and the convolutions in `others`.
std::vector<Layer> layers_of(jit::Graph& graph, size_t& others) {
  std::vector<Layer> layers;
  std::map<std::tuple<bool, const void*, const void*>, size_t> known;
  for (auto* node : graph.nodes()) {
    const bool is_linear = node->kind() == jit::aten::linear;
    const bool is_table = node->kind() == jit::aten::embedding;
    if (!is_linear && !is_table) {
      others += node->kind() == jit::aten::_convolution;
      continue;
    }
    const auto weight = constant_tensor(node->input(is_linear ? 1 : 0));
    const auto bias = is_linear ? constant_tensor(node->input(2)) : std::nullopt;
    const bool has_bias = is_linear && !node->input(2)->mustBeNone();
    if (!weight || weight->dim() != 2 || weight->scalar_type() != at::kFloat || weight->numel() == 0 || has_bias != bias.has_value()) {
      others += is_linear;
      continue;
    }
    const auto key = std::make_tuple(is_linear, weight->const_data_ptr(), bias ? bias->const_data_ptr() : nullptr);
    const auto [at, is_new] = known.emplace(key, layers.size());
    if (is_new) layers.push_back({*weight, bias, is_linear, {}});
    layers[at->second].calls.push_back(node);
  }
  return layers;
}

// Packs 8-bit weights with one scale per row.
Packed pack(const at::Tensor& weight, const at::Tensor& scales, const std::optional<at::Tensor>& bias) {
  const auto zeros = at::zeros({weight.size(0)}, at::kLong);
  static const auto prepack = c10::Dispatcher::singleton()
                                  .findSchemaOrThrow("quantized::linear_prepack", "")
                                  .typed<Packed(at::Tensor, std::optional<at::Tensor>)>();
  return prepack.call(at::_make_per_channel_quantized_tensor(weight, scales, zeros, 0), bias);
}

struct LayerView {
  const at::Tensor* weight;
  bool is_linear;
};

// Weights that replace those of a layer. The tensors belong to the receiver. `weight` is null to keep the layer.
struct Replacement {
  at::Tensor* weight;    // int8 `[outputs, inputs]`; int8 or float16 `[rows, width]` for a table
  at::Tensor* scales;    // of rows: float64 `[outputs]`; float32 `[rows, 1]` or null for a table
  at::Tensor* factors;   // of inputs, `[inputs]`, or null
  at::Tensor* columns;   // int64: the inputs that are also multiplied in float32, or null
  at::Tensor* floating;  // float32 `[outputs, columns]`, or null
};

std::optional<at::Tensor> taken(at::Tensor*& tensor) {
  const std::unique_ptr<at::Tensor> owner(std::exchange(tensor, nullptr));
  return owner ? std::make_optional(*owner) : std::nullopt;
}

// Values that several layers with one input share: its product with factors, and its columns.
class Derived {
 public:
  template <typename Make>
  jit::Value* get(jit::Value* input, const at::Tensor& by, const Make& make) {
    for (const auto& [from, tensor, value] : known_)
      if (from == input && tensor.scalar_type() == by.scalar_type() && at::equal(tensor, by)) return value;
    auto* const value = make();
    known_.emplace_back(input, by, value);
    return value;
  }

  // Replaces a node with one output by a value, which takes over the traced type.
  void replace(jit::Node* node, jit::Value* by) {
    by->setType(node->output()->type());
    for (auto& [from, tensor, value] : known_)
      if (from == node->output()) from = by;
    node->output()->replaceAllUsesWith(by);
    node->destroy();
  }

 private:
  std::vector<std::tuple<jit::Value*, at::Tensor, jit::Value*>> known_;
};

void replace_table(jit::Graph& graph, const Layer& layer, Replacement& by, Derived& derived) {
  const auto weight = taken(by.weight), scales = taken(by.scales);
  jit::WithInsertPoint start(*graph.nodes().begin());
  auto* const table = graph.insertConstant(*weight);
  auto* const row_scales = scales ? graph.insertConstant(*scales) : nullptr;
  for (auto* call : layer.calls) {
    jit::WithInsertPoint here(call);
    const auto look_up = [&](jit::Value* rows) { return graph.insert(jit::aten::embedding, {rows, call->input(1), -1, false, false}); };
    auto* result = graph.insert(jit::aten::to, {look_up(table), c10::kFloat, false, false});
    if (row_scales) result = graph.insert(jit::aten::mul, {result, look_up(row_scales)});
    derived.replace(call, result);
  }
}

void replace_linear(jit::Graph& graph, const Layer& layer, Replacement& by, Derived& derived) {
  static const auto kind = c10::Symbol::fromQualString("quantized::linear_dynamic");
  const auto weight = taken(by.weight), scales = taken(by.scales), factors = taken(by.factors), columns = taken(by.columns),
             floating = taken(by.floating);
  const auto packed = pack(*weight, *scales, layer.bias);
  jit::Value *layer_value, *floating_value = nullptr, *reduce_range;
  {
    jit::WithInsertPoint start(*graph.nodes().begin());
    layer_value = graph.insertConstant(c10::IValue(packed));
    reduce_range = graph.insertConstant(false);
    if (floating) floating_value = graph.insertConstant(*floating);
  }
  for (auto* call : layer.calls) {
    jit::WithInsertPoint here(call);
    auto* const input = call->input(0);
    auto* scaled = input;
    if (factors) scaled = derived.get(input, *factors, [&] { return graph.insert(jit::aten::mul, {input, graph.insertConstant(*factors)}); });
    auto* const quantized = graph.insertNode(graph.create(kind, {scaled, layer_value, reduce_range}));
    auto* result = quantized->output();
    result->setType(c10::TensorType::get());
    if (columns) {
      auto* const chosen = derived.get(input, *columns, [&] {
        const auto rank = input->type()->expect<c10::TensorType>()->dim();
        TORCH_CHECK(rank && *rank > 0, "a linear layer has an input of an unknown rank");
        std::vector<jit::Value*> places(*rank - 1, graph.insertConstant(c10::IValue()));
        places.push_back(graph.insertConstant(*columns));
        auto* const list = graph.insertNode(graph.createList(c10::OptionalType::ofTensor(), places))->output();
        return graph.insert(jit::aten::index, {input, list});
      });
      auto* const none = graph.insertConstant(c10::IValue());
      // In place, because only this node uses the result.
      result = graph.insert(jit::aten::add_, {result, graph.insert(jit::aten::linear, {chosen, floating_value, none})});
    }
    derived.replace(call, result);
  }
}

}  // namespace

extern "C" {

// Calls `plan(context, layer, replacement)` for each linear layer and lookup table of `forward` with constant weights, in the order of
// their first use, and replaces the layer unless the replacement is empty. `plan` returns false to stop with an error of its own.
// Counts the linear layers with computed weights and the convolutions, which cannot be replaced, in `others`. The module must not have
// run before.
char* re_module_replace_layers(jit::Module* module, bool (*plan)(void*, const LayerView*, Replacement*), void* context, size_t* others) {
  return guarded([&] {
    at::NoGradGuard no_grad;
    auto graph = module->get_method("forward").graph();
    *others = 0;
    Derived derived;
    for (const auto& layer : layers_of(*graph, *others)) {
      const LayerView view{&layer.weight, layer.is_linear};
      Replacement by{};
      const bool goes_on = plan(context, &view, &by);
      if (!goes_on) return;
      if (!by.weight) continue;
      (layer.is_linear ? replace_linear : replace_table)(*graph, layer, by, derived);
    }
    jit::EliminateDeadCode(graph);
    graph->lint();
  });
}

// Changes `forward` to return the largest absolute value of each input channel of each linear layer that `re_module_replace_layers` can
// replace, in its order, as one tensor. The module must not have run before.
char* re_module_observe(jit::Module* module) {
  return guarded([&] {
    auto graph = module->get_method("forward").graph();
    size_t others = 0;
    std::vector<jit::Value*> maxima;
    jit::WithInsertPoint end(graph->return_node());
    for (const auto& layer : layers_of(*graph, others)) {
      if (!layer.is_linear) continue;
      jit::Value* largest = nullptr;
      for (const auto* call : layer.calls) {
        auto* const rows = graph->insert(jit::aten::flatten, {graph->insert(jit::aten::abs, {call->input(0)}), 0, -2});
        auto* const found = graph->insert(jit::aten::amax, {rows, std::vector<int64_t>{0}, false});
        largest = largest ? graph->insert(jit::aten::maximum, {largest, found}) : found;
      }
      maxima.push_back(largest);
    }
    TORCH_CHECK(!maxima.empty(), "the graph has no linear layer with constant weights");
    auto* const list = graph->insertNode(graph->createList(c10::TensorType::get(), maxima))->output();
    graph->return_node()->replaceInput(0, graph->insert(jit::aten::cat, {list, 0}));
    jit::EliminateDeadCode(graph);
    graph->lint();
  });
}
}
