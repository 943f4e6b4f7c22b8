import { Refusal } from "../runtime/refusal.ts";

/** A field of the template or of the options, and what is wrong with it: words that go on after its name. */
export interface Problem {
  field: string;
  message: string;
}

/** Everything that makes a pod unfit, each with its field. */
export class UnfitWorkload extends Refusal {
  readonly problems: readonly Problem[];

  /** @param sentence what it is unfit for; a list follows */
  constructor(code: string, sentence: string, problems: readonly Problem[]) {
    const lines = problems.map(({ field, message }) => `- ${field} ${message}.`);
    super(code, `${sentence}:\n${lines.join("\n")}`);
    this.problems = problems;
  }
}
