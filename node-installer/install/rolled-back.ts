// How a change ends that failed; apart from what undoes it, because every command's exit code depends on it.

/** The change failed, and the node serves as before. */
export class RolledBack extends Error {
  override readonly name = "RolledBack";
  readonly code: string;
  constructor(code: string, message: string, options?: ErrorOptions) {
    super(message, options);
    this.code = code;
  }
}

/** The change failed, and so did the rollback: a person must look at the node. */
export class RollbackFailed extends Error {
  override readonly name = "RollbackFailed";
  readonly code = "rollback-failed";
}
