/** A CRI call that containerd did not answer, or answered with an error. The message is a sentence without a full stop. */
export class CriError extends Error {
  override readonly name = "CriError";
  /** containerd runs without its CRI plugin. It registers services before it listens, so waiting does not help. */
  readonly withoutPlugin: boolean;

  constructor(message: string, withoutPlugin = false) {
    super(message);
    this.withoutPlugin = withoutPlugin;
  }
}
