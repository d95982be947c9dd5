// Score images with ONNX Runtime's C++ interface: the decision is all in the graph, from an image of any size on.
//
// fastcutpaste export run
// g++ -std=c++17 -O2 -I/usr/include/onnxruntime examples/score_with_onnxruntime.cpp -lonnxruntime -o score
// ./score run/detector.onnx part.ppm …    (what decodes other formats: `convert part.png part.ppm`, or a library)

#include <onnxruntime_cxx_api.h>

#include <cstdint>
#include <cstdio>
#include <exception>
#include <fstream>
#include <limits>
#include <stdexcept>
#include <string>
#include <vector>

struct Image {
    std::int64_t height, width;
    std::vector<std::uint8_t> pixels;  // rows of red, green, blue
};

Image read_ppm(const std::string& path) {
    std::ifstream file(path, std::ios::binary);
    if (!file) throw std::runtime_error(path + ": an image required, got a file that cannot be read");
    std::string kind;
    file >> kind;
    std::int64_t width = 0, height = 0, most = 0;
    for (auto* number : {&width, &height, &most}) {
        while ((file >> std::ws).peek() == '#') file.ignore(std::numeric_limits<std::streamsize>::max(), '\n');
        file >> *number;
    }
    if (!file || kind != "P6" || most != 255 || width < 1 || height < 1 || width > 65536 || height > 65536)
        throw std::runtime_error(path + ": a PPM image (P6) of 8 bits required, got another file");
    file.get();  // one space, then the pixels
    std::vector<std::uint8_t> pixels(3 * width * height);
    if (!file.read(reinterpret_cast<char*>(pixels.data()), static_cast<std::streamsize>(pixels.size())))
        throw std::runtime_error(path + ": a whole image required, got one cut short");
    return {height, width, pixels};
}

std::vector<std::uint8_t> in_planes(const Image& image) {  // (H, W, 3) -> (3, H, W)
    const std::size_t count = image.pixels.size() / 3;
    std::vector<std::uint8_t> planes(3 * count);
    for (std::size_t i = 0; i < count; ++i)
        for (std::size_t c = 0; c < 3; ++c) planes[c * count + i] = image.pixels[3 * i + c];
    return planes;
}

int main(int count, char** words) try {
    if (count < 3) throw std::runtime_error("a graph and images required: score detector.onnx part.ppm …");
    Ort::Env environment(ORT_LOGGING_LEVEL_ERROR);
    Ort::Session session(environment, words[1], Ort::SessionOptions());
    Ort::AllocatorWithDefaultOptions allocator;
    const auto about = session.GetModelMetadata().LookupCustomMetadataMapAllocated("fastcutpaste", allocator);
    const std::string told = about ? about.get() : "", key = "\"threshold\": ";  // JSON; here one number is enough
    const std::size_t at = told.find(key);
    if (at == std::string::npos) throw std::runtime_error("a graph with the metadata that export gives it required");
    const double threshold = std::stod(told.substr(at + key.size()));
    const bool last = session.GetInputTypeInfo(0).GetTensorTypeAndShapeInfo().GetShape()[3] == 3;  // channels
    const auto memory = Ort::MemoryInfo::CreateCpu(OrtArenaAllocator, OrtMemTypeDefault);
    const char *given[] = {"images"}, *wanted[] = {"scores", "defective"};  // and "maps", (B, H, W) float
    for (int i = 2; i < count; ++i) {
        const Image image = read_ppm(words[i]);
        auto pixels = last ? image.pixels : in_planes(image);
        std::vector<std::int64_t> shape{1, image.height, image.width};
        shape.insert(last ? shape.end() : shape.begin() + 1, 3);  // (1, 3, H, W), or (1, H, W, 3)
        auto images = Ort::Value::CreateTensor<std::uint8_t>(memory, pixels.data(), pixels.size(), shape.data(), 4);
        const auto results = session.Run(Ort::RunOptions(), given, &images, 1, wanted, 2);
        const float score = results[0].GetTensorData<float>()[0];
        const char* label = results[1].GetTensorData<bool>()[0] ? "defective" : "normal";
        std::printf("%9s  score %.6g  threshold %.6g  %s\n", label, score, threshold, words[i]);
    }
} catch (const std::exception& error) {
    std::fprintf(stderr, "score: %s\n", error.what());
    return 1;
}
