// Which shapes fit a step: the values it reads, the one it writes, its window.
#include "cpu/network/graph.h"

namespace sparsecore::network {
namespace {

struct Text {
  char text[64];
};

Text text_of(const Shape& shape) {
  Text out;
  if (shape.rank == 1)
    std::snprintf(out.text, sizeof out.text, "[%lld]", static_cast<long long>(shape.channels));
  else
    std::snprintf(out.text, sizeof out.text, "[%lld, %lld, %lld]", static_cast<long long>(shape.channels),
                  static_cast<long long>(shape.height), static_cast<long long>(shape.width));
  return out;
}

class ShapeCheck {
 public:
  ShapeCheck(const Graph& graph, Step* step, int number, const Failure& failure)
      : graph_(graph), step_(*step), number_(number), failure_(failure) {}

  bool run() {
    switch (step_.op) {
      case Op::kConv: return image(step_.x) && image(step_.y) && window() && residual();
      case Op::kStem: return image(step_.x) && image(step_.y) && window();
      case Op::kDepthwise:
      case Op::kAveragePool:
      case Op::kMaxPool: return image(step_.x) && image(step_.y) && window() && same_channels();
      case Op::kLinear:
      case Op::kDense: return vector(step_.x) && vector(step_.y);
      case Op::kGlobalAveragePool: return image(step_.x) && vector(step_.y) && same_channels();
      case Op::kSqueezeExcite: return image(step_.x) && equal(step_.y, step_.x);
      case Op::kActivation: return equal(step_.y, step_.x);
      case Op::kAdd: return equal(step_.x2, step_.x) && equal(step_.y, step_.x);
      case Op::kScale: return factors() && equal(step_.y, step_.x);
      case Op::kConcat: return concat();
      case Op::kFlatten: return flatten();
      case Op::kSoftmax: return vector(step_.x) && equal(step_.y, step_.x);
    }
    return false;
  }

 private:
  const Shape& shape(int value) const { return graph_.values[static_cast<size_t>(value)]; }

  bool needs(int value, const char* what) const {
    return failure_.say("step %d (%s) needs %s for value %d, which has the shape %s", number_, op_name(step_.op), what,
                        value, text_of(shape(value)).text);
  }
  bool image(int value) const { return shape(value).rank == 3 || needs(value, "the shape [channels, height, width]"); }
  bool vector(int value) const { return shape(value).rank == 1 || needs(value, "the shape [features]"); }
  bool equal(int value, int other) const {
    return shape(value) == shape(other) ||
           failure_.say("step %d (%s) needs equal shapes for values %d and %d, which have %s and %s", number_,
                        op_name(step_.op), other, value, text_of(shape(other)).text, text_of(shape(value)).text);
  }
  bool same_channels() const {
    return shape(step_.y).channels == shape(step_.x).channels ||
           failure_.say("step %d (%s) keeps its channels, but reads %s and writes %s", number_, op_name(step_.op),
                        text_of(shape(step_.x)).text, text_of(shape(step_.y)).text);
  }
  bool residual() const { return step_.x2 < 0 || equal(step_.x2, step_.y); }

  bool window() const {
    Window& window = step_.window;
    const Shape &x = shape(step_.x), &y = shape(step_.y);
    window.height = x.height;
    window.width = x.width;
    window.out_height = y.height;
    window.out_width = y.width;
    const Status status = check_window(window);
    return status == Status::kOk ||
           failure_.say(
               "step %d (%s): a window of %lld x %lld with stride %lld, %lld and padding %lld, %lld does not "
               "lead from %s to %s: a window lies outside the image, or sizes are too large",
               number_, op_name(step_.op), static_cast<long long>(window.kernel_h),
               static_cast<long long>(window.kernel_w), static_cast<long long>(window.stride_h),
               static_cast<long long>(window.stride_w), static_cast<long long>(window.pad_top),
               static_cast<long long>(window.pad_left), text_of(x).text, text_of(y).text);
  }

  bool factors() const {
    const Shape &x = shape(step_.x), &x2 = shape(step_.x2);
    return (x2.rank == 1 && x2.channels == x.channels) ||
           failure_.say("step %d (scale) needs [%lld], a factor per channel of value %d, and value %d has the shape %s",
                        number_, static_cast<long long>(x.channels), step_.x, step_.x2, text_of(x2).text);
  }

  bool concat() const {
    const Shape& y = shape(step_.y);
    int64_t channels = 0;
    for (const int x : step_.xs) {
      if (shape(x).rank != y.rank || shape(x).height != y.height || shape(x).width != y.width)
        return failure_.say("step %d (concat): value %d of shape %s cannot become channels of %s", number_, x,
                            text_of(shape(x)).text, text_of(y).text);
      channels += shape(x).channels;
    }
    return channels == y.channels ||
           failure_.say("step %d (concat): %lld channels come together, and value %d has %lld", number_,
                        static_cast<long long>(channels), step_.y, static_cast<long long>(y.channels));
  }

  bool flatten() const {
    const Shape &x = shape(step_.x), &y = shape(step_.y);
    if (!image(step_.x) || !vector(step_.y)) return false;
    return x.count() == y.channels || failure_.say(
                                          "step %d (flatten) reads %s and writes %s: different numbers of "
                                          "elements",
                                          number_, text_of(x).text, text_of(y).text);
  }

  const Graph& graph_;
  Step& step_;
  const int number_;
  const Failure& failure_;
};

}  // namespace

bool check_shapes(const Graph& graph, Step* step, int number, const Failure& failure) {
  return ShapeCheck(graph, step, number, failure).run();
}

}  // namespace sparsecore::network
