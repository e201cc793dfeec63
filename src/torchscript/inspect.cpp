// Inspection of untrusted archives: of the code before libtorch loads it, and of graphs and signature afterwards. As in native.cpp,
// every function catches C++ exceptions and returns the message (malloc'ed, freed by the caller), or null.
#include <caffe2/serialize/inline_container.h>
#include <caffe2/serialize/read_adapter_interface.h>
#include <torch/csrc/jit/api/function_impl.h>
#include <torch/csrc/jit/frontend/lexer.h>
#include <torch/csrc/jit/frontend/parser.h>
#include <torch/csrc/jit/frontend/tree_views.h>
#include <torch/script.h>

#include <cstring>

#include "guarded.h"

namespace {

using namespace torch::jit;

// Data in code: numbers, strings, and collections of them. libtorch evaluates it without running anything.
bool is_data(const TreeRef& tree) {
  switch (tree->kind()) {
    case TK_CONST:
    case TK_STRINGLITERAL:
    case TK_TRUE:
    case TK_FALSE:
    case TK_NONE:
    case TK_NONE_TYPE:
      return true;
    case TK_VAR: {
      const auto& name = Var(tree).name().name();
      return name == "inf" || name == "nan";
    }
    case TK_UNARY_MINUS:
    case TK_LIST:
    case TK_LIST_LITERAL:
    case TK_TUPLE_LITERAL:
    case TK_DICT_LITERAL:
      return std::all_of(tree->trees().begin(), tree->trees().end(), is_data);
    case TK_APPLY: {
      // An empty list has the form `annotate(List[int], [])`.
      const Apply apply(tree);
      return apply.callee().kind() == TK_VAR && Var(apply.callee()).name().name() == "annotate" && apply.inputs().size() == 2 &&
             apply.attributes().empty() && is_data(apply.inputs()[1].tree());
    }
    default:
      return false;
  }
}

// While libtorch loads an archive, it evaluates default arguments and the values of class attributes, including all calls in them.
void check_evaluated(const TreeRef& tree) {
  const auto check = [](const TreeRef& value) {
    if (!is_data(value)) throw std::runtime_error("it computes something while it is loaded: " + value->range().text().str());
  };
  if (tree->kind() == TK_PARAM) {
    const auto value = Param(tree).defaultValue();
    if (value.present()) check(value.get().tree());
  } else if (tree->kind() == TK_CLASS_DEF) {
    for (const auto& statement : ClassDef(tree).body()) {
      if (statement.kind() != TK_ASSIGN) continue;
      const Assign assign(statement);
      // `__annotations__["0"] = Tensor` declares a type.
      if (assign.lhs().kind() != TK_SUBSCRIPT && assign.rhs().present()) check(assign.rhs().get().tree());
    }
  }
  for (const auto& inner : tree->trees()) check_evaluated(inner);
}

// An archive in memory.
struct Bytes final : caffe2::serialize::ReadAdapterInterface {
  const char* data;
  size_t length;
  Bytes(const void* data, size_t length) : data(static_cast<const char*>(data)), length(length) {}
  size_t size() const override { return length; }
  size_t read(uint64_t at, void* into, size_t n, const char*) const override {
    if (at >= length) return 0;
    n = std::min<size_t>(n, length - at);
    std::memcpy(into, data + at, n);
    return n;
  }
};

struct Record {
  const char* name;
  uint64_t offset;
  uint64_t size;
};

// Number of nodes of a graph with the functions that it calls inlined as far as possible. The same number as after Inline, without
// inlining.
struct Nodes {
  // For each inlined node, libtorch stores all calls that led to it.
  static constexpr int kMaxDepth = 200;

  std::unordered_map<const Function*, uint64_t> known;
  uint64_t limit;
  int depth = 0;

  uint64_t of(Function& function) {
    auto* const graph = tryToGraphFunction(function);
    if (!graph) return 1;
    const auto [entry, is_new] = known.emplace(&function, limit);
    if (!is_new) return entry->second;
    TORCH_CHECK(++depth <= kMaxDepth, "its functions call each other more than ", kMaxDepth, " deep");
    const auto count = of(graph->graph()->block());
    --depth;
    return known[&function] = count;
  }

  uint64_t of(Block* block) {
    uint64_t count = 0;
    for (auto* node : block->nodes()) {
      count += 1;
      if (node->kind() == prim::CallFunction) {
        if (const auto type = node->input(0)->type()->cast<c10::FunctionType>()) count += of(*type->function());
      } else if (node->kind() == prim::CallMethod) {
        if (const auto type = node->input(0)->type()->cast<c10::ClassType>()) count += of(type->getMethod(node->s(attr::name)));
      }
      for (auto* inner : node->blocks()) count += of(inner);
      if (count >= limit) return limit;
    }
    return count;
  }
};

}  // namespace

extern "C" {

// Parses a file of code as libtorch does, and rejects code that would run during loading.
char* re_code_check(const char* text, size_t size) {
  return guarded([&] {
    Parser parser(std::make_shared<Source>(std::string_view(text, size)));
    auto& lexer = parser.lexer();
    if (lexer.cur().kind == TK_IDENT && lexer.cur().text() == "op_version_set") {
      lexer.next();
      lexer.expect('=');
      lexer.expect(TK_NUMBER);
      lexer.nextIf(TK_NEWLINE);
    }
    while (lexer.cur().kind != TK_EOF) {
      if (lexer.nextIf(TK_NEWLINE)) continue;
      if (lexer.nextIf(TK_IMPORT)) {
        while (lexer.cur().kind != TK_NEWLINE && lexer.cur().kind != TK_EOF) lexer.next();
      } else if (lexer.cur().kind == TK_CLASS_DEF) {
        check_evaluated(parser.parseClass());
      } else {
        check_evaluated(parser.parseFunction(false));
      }
    }
  });
}

// Checks that libtorch finds the same records at the same positions as the inspection.
char* re_archive_agrees(const void* data, size_t size, const Record* records, size_t count) {
  return guarded([&] {
    caffe2::serialize::PyTorchStreamReader reader(std::make_shared<Bytes>(data, size));
    TORCH_CHECK(reader.getAllRecords().size() == count, "its directory can be read in two ways");
    for (size_t i = 0; i < count; ++i) {
      const auto& [name, offset, length] = records[i];
      TORCH_CHECK(reader.getRecordOffset(name) == offset && reader.getRecordSize(name) == length, "its record ", name,
                  " can be found in two places");
    }
  });
}

// Loads an archive from memory, for evaluation. The records of line numbers are left out, because they were not inspected.
char* re_archive_load(const void* data, size_t size, Module** out) {
  return guarded([&] {
    const auto bytes = std::make_shared<Bytes>(data, size);
    auto module = torch::jit::load(bytes, c10::Device(at::kCPU), /*load_debug_files=*/false);
    module.eval();
    *out = new Module(module);
    bytes->length = 0;
  });
}

// Number of nodes of all methods with functions inlined, or `limit` if there are more.
char* re_module_nodes(const Module* module, uint64_t limit, uint64_t* out) {
  return guarded([&] {
    Nodes nodes{{}, limit};
    *out = 0;
    for (const auto& method : module->get_methods()) *out = std::min(limit, *out + nodes.of(method.function()));
  });
}

// Calls `visit` for each parameter of `forward` with name, type, whether it accepts a tensor, and whether it is optional. The last
// call has an empty name, the return type, and whether that is a tensor or a tuple that begins with one.
char* re_module_signature(const Module* module, void (*visit)(void*, const char*, const char*, bool, bool), void* context) {
  return guarded([&] {
    const auto method = module->find_method("forward");
    TORCH_CHECK(method, "it has no method forward");
    const auto& schema = method->function().getSchema();
    const auto tensor = c10::TensorType::get();
    bool is_self = true;
    for (const auto& argument : schema.arguments()) {
      if (!std::exchange(is_self, false))
        visit(context, argument.name().c_str(), argument.type()->repr_str().c_str(),
              tensor->isSubtypeOf(*argument.type()) && !argument.kwarg_only(), argument.default_value().has_value());
    }
    TORCH_CHECK(schema.returns().size() == 1, "forward returns nothing");
    auto type = schema.returns()[0].type();
    const auto name = type->repr_str();
    if (const auto tuple = type->cast<c10::TupleType>())
      if (!tuple->elements().empty()) type = tuple->elements()[0];
    const bool unknown = type->kind() == c10::AnyType::Kind || type->kind() == c10::UnionType::Kind;
    visit(context, "", name.c_str(), unknown || type->isSubtypeOf(*tensor) || tensor->isSubtypeOf(*type), false);
  });
}
}
