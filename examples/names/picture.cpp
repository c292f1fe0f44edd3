#include "picture.hpp"

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <vector>

#include "report.hpp"

namespace names {

namespace {

constexpr double width = 760;
constexpr double height = 440;
constexpr double left = 70;
constexpr double right = 30;
constexpr double top = 50;
constexpr double bottom = 60;

std::string number(double value, int digits = 1) {
  char text[32];
  std::snprintf(text, sizeof text, "%.*f", digits, value);
  return text;
}

// Round numbers, about five in [low, high].
std::vector<double> ticks(double low, double high) {
  const double rough = (high - low) / 5;
  const double power = std::pow(10, std::floor(std::log10(rough)));
  const double ratio = rough / power;
  const double step = power * (ratio < 1.5 ? 1 : ratio < 3.5 ? 2 : ratio < 7.5 ? 5 : 10);
  std::vector<double> values;
  for (double k = std::ceil(low / step); k * step <= high + step * 1e-9; ++k) values.push_back(k * step);
  return values;
}

std::string line(double x1, double y1, double x2, double y2, const std::string& style) {
  return "<line x1=\"" + number(x1) + "\" y1=\"" + number(y1) + "\" x2=\"" + number(x2) + "\" y2=\"" + number(y2) +
         "\" " + style + "/>\n";
}

std::string label(double x, double y, const std::string& text, const std::string& style = "") {
  return "<text x=\"" + number(x) + "\" y=\"" + number(y) + "\" " + style + ">" + text + "</text>\n";
}

}  // namespace

std::string loss_curves_as_svg(const Options& options, const Corpus& corpus, const Result& result) {
  const std::vector<double> one = smoothed(result.one_device.losses, 300);
  const std::vector<double> parallel = smoothed(result.parallel.losses, 300);
  const double steps = static_cast<double>(options.steps);
  const double unigram = corpus.unigram_loss();
  double low = unigram;
  double high = unigram;
  for (const auto* curve : {&one, &parallel})
    for (const double loss : *curve)
      if (std::isfinite(loss)) {
        low = std::min(low, loss);
        high = std::max(high, loss);
      }
  const double margin = std::max(0.05 * (high - low), 1e-3);
  low -= margin;
  high += margin;

  const auto x_of = [&](double step) { return left + (width - left - right) * step / steps; };
  const auto y_of = [&](double loss) { return top + (height - top - bottom) * (high - loss) / (high - low); };
  const auto curve = [&](const std::vector<double>& losses, const std::string& style) {
    std::string points;
    for (std::size_t i = 0; i < losses.size(); ++i)
      if (std::isfinite(losses[i]))
        points += number(x_of(steps * (static_cast<double>(i) + 0.5) / static_cast<double>(losses.size()))) + "," +
                  number(y_of(losses[i])) + " ";
    return "<polyline fill=\"none\" " + style + " points=\"" + points + "\"/>\n";
  };
  const std::string ranks = std::to_string(options.ranks) + (options.ranks == 1 ? " rank" : " ranks");
  const std::string one_style = "stroke=\"#9ecae1\" stroke-width=\"6\" stroke-linejoin=\"round\"";
  const std::string parallel_style = "stroke=\"#08519c\" stroke-width=\"2\" stroke-dasharray=\"7 4\"";
  const std::string unigram_style = "stroke=\"#b15928\" stroke-width=\"1.5\" stroke-dasharray=\"2 3\"";
  const double x_end = width - right;
  const double y_end = height - bottom;

  std::string svg = "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 " + number(width, 0) + " " +
                    number(height, 0) + "\" width=\"" + number(width, 0) + "\" height=\"" + number(height, 0) +
                    "\" font-family=\"sans-serif\" font-size=\"13\">\n"
                    "<title>Training loss on one device and on " +
                    ranks +
                    "</title>\n"
                    "<rect width=\"100%\" height=\"100%\" fill=\"white\"/>\n";
  for (const double loss : ticks(low, high)) {
    svg += line(left, y_of(loss), x_end, y_of(loss), "stroke=\"#e0e0e0\"");
    svg += label(left - 8, y_of(loss) + 4, number(loss, high - low < 1 ? 2 : 1), "text-anchor=\"end\"");
  }
  for (const double step : ticks(0, steps)) {
    svg += line(x_of(step), y_end, x_of(step), y_end + 5, "stroke=\"black\"");
    svg += label(x_of(step), y_end + 20, number(step, steps < 5 ? 1 : 0), "text-anchor=\"middle\"");
  }
  svg += line(left, top, left, y_end, "stroke=\"black\"") + line(left, y_end, x_end, y_end, "stroke=\"black\"");
  svg += label(0.5 * (left + x_end), height - 15, "training step", "text-anchor=\"middle\"");
  svg += label(0, 0, "loss (nats a character)",
               "text-anchor=\"middle\" transform=\"translate(20 " + number(0.5 * (top + y_end)) + ") rotate(-90)\"");
  svg += line(left, y_of(unigram), x_end, y_of(unigram), unigram_style);
  svg += curve(one, one_style) + curve(parallel, parallel_style);

  struct Entry {
    std::string style, text;
  };
  double x = left;
  for (const Entry& entry : {Entry{one_style, "one device"}, Entry{parallel_style, ranks + ", tensor-parallel"},
                             Entry{unigram_style, "unigram baseline (held-out words)"}}) {
    svg += line(x, 26, x + 36, 26, entry.style) + label(x + 44, 30, entry.text);
    x += 70 + 7.2 * static_cast<double>(entry.text.size());
  }
  return svg + "</svg>\n";
}

}  // namespace names
