/**
 * Something that the product declines to do, or a mistake by its user. The message consists of whole sentences: the
 * thing, its value, what was expected, and what to do. Printed without a stack.
 */
export class Refusal extends Error {
  override readonly name = "Refusal";
  /** Kebab-case, stable: for metrics, node Events and tests. */
  readonly code: string;

  constructor(code: string, message: string, options?: ErrorOptions) {
    super(message, options);
    this.code = code;
  }
}
