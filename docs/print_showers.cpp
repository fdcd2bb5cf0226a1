// Prints the samples of an ONNX model that hpcgan has exported with its random numbers drawn inside:
//
//   hpcgan export RUN --format onnx --noise drawn --out model
//   g++ -std=c++17 print_showers.cpp -I INCLUDE -L LIB -lonnxruntime -o print_showers
//   ./print_showers model/model.onnx 1000 1 energy=50
//
// Arguments: the model, how many, the seed, and the conditions by name in the model's units, the same for all. A line a
// sample: its number, and of each output the sum, the unit, and how many values are above zero. They are those of
// `hpcgan generate RUN --seed 1 --condition energy=50`. Needs ONNX Runtime 1.17 or later, and nothing of hpcgan.
#include <onnxruntime_cxx_api.h>

#include <algorithm>
#include <cstdint>
#include <cstdio>
#include <exception>
#include <list>
#include <map>
#include <stdexcept>
#include <string>
#include <vector>

constexpr std::int64_t kBatch = 100;

void print(const std::string& path, std::int64_t n, std::int64_t seed, const std::map<std::string, float>& conditions) {
  Ort::Env env(ORT_LOGGING_LEVEL_ERROR, "print_showers");
  Ort::SessionOptions options;
  options.SetIntraOpNumThreads(1);
  Ort::Session session(env, path.c_str(), options);
  Ort::AllocatorWithDefaultOptions allocator;
  auto memory = Ort::MemoryInfo::CreateCpu(OrtArenaAllocator, OrtMemTypeDefault);
  auto about = session.GetModelMetadata();
  std::vector<std::string> inputs{"first"}, outputs, units;  // "first" has a default, and is not among GetInputName's
  for (std::size_t i = 0; i < session.GetInputCount(); ++i)
    inputs.emplace_back(session.GetInputNameAllocated(i, allocator).get());
  for (std::size_t i = 0; i < session.GetOutputCount(); ++i) {
    outputs.emplace_back(session.GetOutputNameAllocated(i, allocator).get());
    auto unit = about.LookupCustomMetadataMapAllocated(("output." + outputs.back() + ".unit").c_str(), allocator);
    units.emplace_back(unit ? unit.get() : "");
  }
  std::vector<const char*> fed, made;
  for (const auto& name : inputs) fed.push_back(name.c_str());
  for (const auto& name : outputs) made.push_back(name.c_str());

  for (std::int64_t first = 0; first < n; first += kBatch) {
    const std::int64_t samples = std::min(kBatch, n - first);
    std::map<std::string, std::int64_t> numbers{{"seed", seed}, {"first", first}, {"samples", samples}};
    std::list<std::vector<float>> levels;  // which the tensors of conditions refer to
    std::vector<Ort::Value> given;
    for (std::size_t i = 0; i < inputs.size(); ++i) {
      if (auto number = numbers.find(inputs[i]); number != numbers.end()) {
        given.push_back(Ort::Value::CreateTensor<std::int64_t>(memory, &number->second, 1, nullptr, 0));
        continue;
      }
      auto condition = conditions.find(inputs[i]);
      if (condition == conditions.end()) throw std::runtime_error("say " + inputs[i] + "=VALUE");
      auto shape = session.GetInputTypeInfo(i - 1).GetTensorTypeAndShapeInfo().GetShape();
      std::int64_t size = shape[0] = samples;
      for (std::size_t axis = 1; axis < shape.size(); ++axis) size *= shape[axis];
      auto& all = levels.emplace_back(static_cast<std::size_t>(size), condition->second);
      given.push_back(Ort::Value::CreateTensor<float>(memory, all.data(), all.size(), shape.data(), shape.size()));
    }
    auto results =
        session.Run(Ort::RunOptions{nullptr}, fed.data(), given.data(), fed.size(), made.data(), made.size());
    for (std::int64_t sample = 0; sample < samples; ++sample) {
      std::printf("%lld", static_cast<long long>(first + sample));
      for (std::size_t i = 0; i < results.size(); ++i) {
        const auto cells = static_cast<std::int64_t>(results[i].GetTensorTypeAndShapeInfo().GetElementCount()) / samples;
        const float* begin = results[i].GetTensorData<float>() + sample * cells;
        double sum = 0.0;
        std::for_each(begin, begin + cells, [&sum](float value) { sum += value; });
        const auto lit = std::count_if(begin, begin + cells, [](float value) { return value > 0.0F; });
        std::printf("  %s %.6g %s in %lld", made[i], sum, units[i].c_str(), static_cast<long long>(lit));
      }
      std::printf("\n");
    }
  }
}

int main(int argc, char** argv) {
  try {
    if (argc < 4) throw std::runtime_error("usage: print_showers MODEL N SEED [CONDITION=VALUE ...]");
    std::map<std::string, float> conditions;
    for (int i = 4; i < argc; ++i) {
      const std::string word = argv[i];
      const auto equals = word.find('=');
      if (equals == std::string::npos) throw std::runtime_error(word + ": not NAME=VALUE");
      conditions[word.substr(0, equals)] = std::stof(word.substr(equals + 1));
    }
    print(argv[1], std::stoll(argv[2]), std::stoll(argv[3]), conditions);
  } catch (const std::exception& error) {
    std::fprintf(stderr, "print_showers: %s\n", error.what());
    return 1;
  }
  return 0;
}
