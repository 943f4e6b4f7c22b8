// node --require this file: lets a program believe that it runs elsewhere, as FAKE_PLATFORM says: "darwin/arm64".
const [platform, arch] = process.env.FAKE_PLATFORM.split("/");
Object.defineProperty(process, "platform", { value: platform });
Object.defineProperty(process, "arch", { value: arch });
// Windows has neither users' numbers nor this.
if (platform === "win32") for (const name of ["getuid", "geteuid", "getgid", "getegid"]) delete process[name];
