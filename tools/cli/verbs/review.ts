import { Option } from "@commander-js/extra-typings";
import { systemNamespace } from "../../../runtime/names.ts";
import { exitWith, Verb } from "../command.ts";
import { clusterHelp } from "../help.ts";
import { each } from "../values.ts";

const previewHelp = 'what "pulumi preview --json" printed; - reads standard input';
const bundlesHelp = "the nodes' bundles, in DIRECTORY/GROUP/*.json, or for a single spec in DIRECTORY/*.json";

export const verb = () =>
  new Verb("review")
    .description("Says what a preview does, checks it against the approved one, plans a whole fleet.")
    .addCommand(summary())
    .addCommand(rendered())
    .addCommand(check())
    .addCommand(approval())
    .addCommand(release())
    .addCommand(fleet())
    .addCommand(collect())
    .addCommand(comment())
    .addCommand(stacks());

const summary = () =>
  new Verb("summary")
    .description("Prints what a preview does, in Markdown. Exits with 1 if the preview has errors.")
    .requiredOption("--preview <file>", previewHelp)
    .option("--bundles <directory>", `adds the fleet plan: ${bundlesHelp}`)
    .option(
      "--canonical <file>",
      "stores the form that is approved; in a job of GitHub or GitLab it names the commit, the request and the run",
    )
    .option("--plan <file>", "names the update plan that the same preview saved")
    .option("--approved <file>", "names the request that was approved")
    .action(async (options) => exitWith(await (await import("../../review/summary.ts")).summary(options)));

const rendered = () =>
  new Verb("rendered")
    .description(
      `Prints what a change of rendered manifests does, in Markdown, as summary does of a preview: from two directories that
"contrast-runtime render" wrote. It needs no engine, no state and no cluster. An empty directory: nothing is rendered.`,
    )
    .requiredOption("--before <directory>", "the manifests that are applied, such as those of the base branch")
    .requiredOption("--after <directory>", "the manifests that take their place")
    .option("--bundles <directory>", `adds the fleet plan: ${bundlesHelp}`)
    .action(async (options) => (await import("../../review/rendered.ts")).rendered(options));

const check = () =>
  new Verb("check")
    .description(
      `Compares a fresh preview with the approved form, or an update plan with the form that names it, which must be of this
job's commit and run. Exits with 1 and a sentence for each difference.`,
    )
    .requiredOption("--approved <file>", 'the form that "review summary --canonical" stored')
    .addOption(new Option("--preview <file>", previewHelp).conflicts("plan"))
    .option("--plan <file>", "the update plan")
    .action(async ({ approved, preview, plan }, command) => {
      const { checkPlan, checkPreview } = await import("../../review/check.ts");
      if (preview !== undefined) return exitWith(await checkPreview(approved, preview));
      if (plan !== undefined) return exitWith(await checkPlan(approved, plan));
      command.error("Give either --preview or --plan.");
    });

const approval = () =>
  new Verb("approval")
    .description(
      `In a job for a merged commit: looks up the request that it came from and its approval, and writes the form that its
preview stored.`,
    )
    .requiredOption("--stored <name>", "GitHub: the form's artifact; GitLab: its path among the job's artifacts")
    .requiredOption("--form <file>", "where the form goes")
    .action(async ({ stored, form }) => (await import("../../review/approval.ts")).approval(stored, form));

const release = () =>
  new Verb("release")
    .description(
      "In a job that waited for an environment: looks up who let it go on, and that no update began by this plan before.",
    )
    .requiredOption("--approved <file>", 'the form that "review summary --approved" stored')
    .requiredOption("--environment <name>", "the environment")
    .action(async ({ approved, environment }) =>
      (await import("../../review/approval.ts")).release(approved, environment),
    );

const fleet = () =>
  new Verb("fleet")
    .description(
      "Says what an install spec does to each node, by the installer's own plan. Exits with 1 if a node is refused.",
    )
    .requiredOption("--bundles <directory>", bundlesHelp)
    .addOption(new Option("--preview <file>", previewHelp).conflicts("spec"))
    .option("--spec <file>", "an install spec instead", each, [])
    .option("--json", "print JSON")
    .action(async ({ bundles, preview, spec, json }, command) => {
      if (preview === undefined && spec.length === 0) return command.error("Give either --preview or --spec.");
      exitWith(await (await import("../../review/fleet.ts")).fleet({ bundles, preview, spec, json }));
    });

const collect = () =>
  new Verb("collect")
    .description("Fetches the nodes' bundles.")
    .requiredOption("--output <directory>", "they become DIRECTORY/GROUP/NODE.json")
    .option("--namespace <name>", "the installers' namespace", systemNamespace)
    .addHelpText("after", clusterHelp("a node gave no bundle"))
    .action(async ({ output, namespace }) =>
      exitWith(await (await import("../../review/collect.ts")).collect(output, namespace)),
    );

const comment = () =>
  new Verb("comment")
    .description("Writes a file as the one comment of this pull request (GitHub Actions) or merge request (GitLab CI).")
    .requiredOption("--body <file>", "the comment; - reads standard input")
    .action(async ({ body }) => (await import("../../review/comment.ts")).comment(body));

const stacks = () =>
  new Verb("stacks")
    .description(
      `Prints which of a pipeline's stacks a change concerns, as JSON: those whose file, or a file that it names, is another
than in a commit, and all of them where the program is or no file is. Run it where the change is checked out, at its root.`,
    )
    .requiredOption("--stacks <json>", "a JSON array of all stacks")
    .requiredOption("--base <commit>", "the commit before the change; if git does not know it, all stacks are printed")
    .action(async ({ stacks, base }) => (await import("../../review/stacks.ts")).stacks(stacks, base));
