/** A call of the CRI that containerd did not answer, or answered with an error. The message is a sentence without an end. */
export class CriError extends Error {
  override readonly name = "CriError";
  /** containerd serves, but without its CRI plugin: it registers its services before it listens, so no time will help. */
  readonly withoutPlugin: boolean;

  constructor(message: string, withoutPlugin = false) {
    super(message);
    this.withoutPlugin = withoutPlugin;
  }
}
