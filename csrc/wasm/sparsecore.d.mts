// Types of sparsecore.mjs. Sizes are counted in elements; 16-bit floats travel as their bits in an Uint16Array.

export type DType = "float32" | "bfloat16" | "float16" | "int8";
export type Activation =
  | "none" | "relu" | "gelu" | "gelu_tanh" | "silu" | "relu6" | "hard_swish" | "hard_sigmoid" | "sigmoid";
export type Values = Float32Array | Uint16Array | Int8Array;

/** Everything this package throws on bad input: what was needed, what was given. */
export class SparsecoreError extends Error {}

/** Whether the engine knows the 128-bit vectors of WebAssembly, which the package needs. */
export function hasSimd(): boolean;
/** Whether it knows relaxed SIMD, whose fused product is faster. */
export function hasRelaxedSimd(): boolean;

export interface LoadOptions {
  /** Force (true) or refuse (false) the relaxed SIMD build; detected where left out. */
  relaxed?: boolean;
  /** Where the .wasm files are; the folder of sparsecore.mjs where left out. */
  folder?: string | URL;
}
/** Compiles the module. Independent modules have memories of their own. */
export function load(options?: LoadOptions): Promise<Sparsecore>;

/** What every packed layer takes beside the arrays of its format. */
export interface LayerOptions {
  inFeatures: number;
  outFeatures: number;
  values: Values;
  /** Type of `values`; int8 for an Int8Array, else float32, where left out. */
  valuesDtype?: DType;
  /** [outFeatures]; required for int8 values. */
  scale?: Float32Array | null;
  /** [outFeatures], of `biasDtype`. */
  bias?: Values | null;
  biasDtype?: DType;
  activation?: Activation;
  /** int8: the input is quantised per token, sums are int32; shared lists alone. */
  compute?: "float32" | "float16" | "int8";
  /** Of the layer's input and output. */
  dtype?: Exclude<DType, "int8">;
}
export interface RowListsOptions extends LayerOptions {
  /** Columns of a block. 128 where left out. */
  block?: number;
  offsets: Uint8Array;
  blockPtr: Int32Array;
}
export interface SharedListsOptions extends LayerOptions {
  /** Neighbouring output channels that keep the same inputs. */
  vector: number;
  columns: Uint16Array;
  groupPtr: Int32Array;
}
export interface NmDecodeOptions extends LayerOptions {
  /** [n, m]: n kept of every m. */
  pattern: [n: number, m: number];
  codes: Uint32Array;
}
export interface BitmapDecodeOptions extends LayerOptions {
  bitmap: BigUint64Array;
  rowPtr: Int32Array;
}
export interface VariableNmOptions extends LayerOptions {
  /** Two places in four bits each, for every pair of kept weights of the blocks that are neither empty nor dense. */
  indices: Uint8Array;
  /** [outFeatures / 16, inFeatures / 16], how many of every 16 inputs each block keeps: 0, 2, 4, 8 or 16. */
  codes: Uint8Array;
}
export interface DenseOptions {
  inFeatures: number;
  outFeatures: number;
  /** [outFeatures, inFeatures] */
  weight: Float32Array;
  bias?: Float32Array | null;
  activation?: Activation;
}

/** A layer whose weights live in the module's memory until free(). */
export interface Layer {
  readonly family: string;
  readonly outFeatures: number;
  readonly inFeatures: number;
  readonly dtype: DType;
  /** Bytes of the packed weight. */
  readonly nbytes: number;
  /** [tokens, inFeatures] -> [tokens, outFeatures], both flat. `out` is filled and returned where given. */
  forward<T extends Float32Array | Uint16Array>(x: T, out?: T): T;
  free(): void;
}

/** The module. Made by load(). */
export class Sparsecore {
  private constructor();
  /** The build that runs: "wasm" or "wasm_relaxed". */
  readonly isa: string;
  /** Bytes of linear memory that the module holds. */
  readonly memoryBytes: number;
  /** Any per-row pattern; made for 16 tokens and more. */
  rowLists(options: RowListsOptions): Layer;
  /** Groups of `vector` output channels that keep the same inputs: the fastest format for linear layers. */
  sharedLists(options: SharedListsOptions): Layer;
  /** Per-row N:M for one to eight tokens. */
  nmDecode(options: NmDecodeOptions): Layer;
  /** Unstructured for one to eight tokens. */
  bitmapDecode(options: BitmapDecodeOptions): Layer;
  /** Blocks of 16 x 16 with an N of 16 each, for one to eight tokens. */
  variableNm(options: VariableNmOptions): Layer;
  dense(options: DenseOptions): Layer;
  /** A whole network from the bytes of its file, checked; throws SparsecoreError on a damaged one. */
  network(file: ArrayBuffer | Uint8Array): Network;
  /** A whole network from where its file lies, relative to the page. */
  fetchNetwork(url: string | URL): Promise<Network>;
  /** Gives back the module's working memory; layers stay. */
  releaseScratch(): void;
}

/** An input or an output of a network: an array of `shape` per image. */
export interface Port {
  readonly name: string;
  readonly shape: readonly number[];
  /** [C, H, W], [H, W, C] or [features]. */
  readonly layout: "chw" | "hwc" | "vector";
}

/** One operator of a network. */
export interface Step {
  readonly op: string;
  /** The name of its weight in the file, or empty. */
  readonly weight: string;
  readonly kernel: string;
  /** Multiply-adds that are done for one image, and that a dense weight would take. */
  readonly products: number;
  readonly denseProducts: number;
  /** Of the last profile(), else 0. */
  readonly seconds: number;
}

/** A whole network whose weights live in the module's memory until free(). Made by Sparsecore.network(). */
export class Network {
  private constructor();
  readonly inputs: readonly Port[];
  readonly outputs: readonly Port[];
  /** One array per input, its images one after the other; a list of arrays where the network has several outputs. */
  run(...inputs: Float32Array[]): Float32Array | Float32Array[];
  /** Runs images like run() and returns the steps with the seconds each took. */
  profile(...inputs: Float32Array[]): Step[];
  steps(): Step[];
  /** Bytes of memory for all values between the steps. */
  readonly arenaBytes: number;
  readonly weightBytes: number;
  free(): void;
}

export interface SafetensorsTensor {
  /** As the file spells it: "F32", "U8" and so on. */
  dtype: string;
  shape: number[];
  data:
    | Float64Array | Float32Array | Uint32Array | Int32Array | Uint16Array | Int16Array | Uint8Array | Int8Array
    | BigInt64Array | BigUint64Array;
}
/** Reads a safetensors file, checked; throws SparsecoreError on a damaged one. */
export function readSafetensors(file: ArrayBuffer | Uint8Array): {
  metadata: Record<string, string>;
  tensors: Map<string, SafetensorsTensor>;
};
