import { platformOf } from "../../runtime/handler.ts";
import { platforms } from "../../runtime/platforms.ts";

/** A handler and the further names of its RuntimeClass. */
export interface NamedHandler {
  handler: string;
  classNames: readonly string[];
}

/**
 * Names that cannot be: each with the handler's place in the list, its own place among the names, and words that go on after
 * it. A class has one handler, and the class of each handler's own name is there already.
 */
export function mistakesOfClassNames(
  handlers: readonly NamedHandler[],
): { index: number; place: number; message: string }[] {
  const own = new Set(handlers.map(({ handler }) => handler));
  const owners = new Map<string, string>();
  return handlers.flatMap(({ handler, classNames }, index) =>
    classNames.flatMap((name, place) => {
      const owner = owners.get(name);
      owners.set(name, owner ?? handler);
      const message = problemOf(name, handler, { own, owner, isTwice: classNames.indexOf(name) < place });
      return message === undefined ? [] : [{ index, place, message }];
    }),
  );
}

function problemOf(
  name: string,
  handler: string,
  { own, owner, isTwice }: { own: ReadonlySet<string>; owner: string | undefined; isTwice: boolean },
): string | undefined {
  if (isTwice) return "is listed twice";
  if (name === handler) return "is the handler's own name, whose RuntimeClass is there in any case";
  if (own.has(name)) return "is the name of another handler of this stack, which has its own RuntimeClass";
  if (owner !== undefined && owner !== handler)
    return `is a RuntimeClass of ${owner} already: a class leads to one handler. To move it there is one update: take it from that runtime and give it to this one`;
  if (isInsecure(handler) && name.startsWith("contrast-cc"))
    return `promises confidential pods, which ${handler} does not make`;
  return undefined;
}

const isInsecure = (handler: string): boolean => {
  const platform = platformOf(handler);
  return platform === undefined || platforms[platform].insecure || handler.startsWith("contrast-insecure-");
};
