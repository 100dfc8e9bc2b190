// Canvases in, the arrays that networks take out.

const MEAN = [0.485, 0.456, 0.406];
const DEVIATION = [0.229, 0.224, 0.225];

/** [3, height, width], normalised as image networks are trained. */
export function pixelsOf(context) {
  const { width, height } = context.canvas;
  const { data } = context.getImageData(0, 0, width, height);
  const count = width * height;
  const planes = new Float32Array(3 * count);
  for (let c = 0; c < 3; ++c)
    for (let p = 0; p < count; ++p) planes[c * count + p] = (data[4 * p + c] / 255 - MEAN[c]) / DEVIATION[c];
  return planes;
}

/** A picture to start with, painted here: hills under a sun. */
export function drawDefaultImage(context) {
  const { width, height } = context.canvas;
  const sky = context.createLinearGradient(0, 0, 0, height);
  sky.addColorStop(0, "#4a7fb5");
  sky.addColorStop(1, "#f3c98b");
  context.fillStyle = sky;
  context.fillRect(0, 0, width, height);
  context.fillStyle = "#fff2c9";
  context.beginPath();
  context.arc(0.7 * width, 0.35 * height, 0.09 * width, 0, 2 * Math.PI);
  context.fill();
  ["#6d8f7a", "#4c7360", "#2d5446"].forEach((color, i) => {
    context.fillStyle = color;
    context.beginPath();
    context.moveTo(0, height);
    for (let x = 0; x <= width; ++x) {
      const wave = Math.sin(x / (34 - 6 * i) + 2 * i) + 0.4 * Math.sin(x / 11 + i);
      context.lineTo(x, height * (0.58 + 0.13 * i) - 9 * wave);
    }
    context.lineTo(width, height);
    context.fill();
  });
}

const SIDE = 8;
const FILLED = 0.98; // of the height or the width, as in the digits that the network learned

/**
 * What is drawn, black on white, moved to the middle, scaled and averaged to 8 x 8 with ink from 0 to 1.
 * Null where nothing is drawn.
 */
export function digitOf(context) {
  const { width, height } = context.canvas;
  const { data } = context.getImageData(0, 0, width, height);
  const ink = (x, y) => (x < 0 || y < 0 || x >= width || y >= height ? 0 : 1 - data[4 * (y * width + x)] / 255);
  let [left, top, right, bottom] = [width, height, -1, -1];
  for (let y = 0; y < height; ++y)
    for (let x = 0; x < width; ++x)
      if (ink(x, y) > 0.5) [left, top, right, bottom] = [Math.min(left, x), Math.min(top, y), Math.max(right, x), Math.max(bottom, y)];
  if (right < 0) return null;
  const side = Math.max(right - left + 1, bottom - top + 1) / FILLED;
  const [x0, y0] = [(left + right + 1 - side) / 2, (top + bottom + 1 - side) / 2];
  const digit = new Float32Array(SIDE * SIDE);
  const parts = 8; // samples per cell and axis
  for (let i = 0; i < digit.length; ++i) {
    let sum = 0;
    for (let j = 0; j < parts * parts; ++j) {
      const x = x0 + (side * ((i % SIDE) + ((j % parts) + 0.5) / parts)) / SIDE;
      const y = y0 + (side * (Math.floor(i / SIDE) + (Math.floor(j / parts) + 0.5) / parts)) / SIDE;
      sum += ink(Math.floor(x), Math.floor(y));
    }
    digit[i] = sum / (parts * parts);
  }
  return digit;
}
