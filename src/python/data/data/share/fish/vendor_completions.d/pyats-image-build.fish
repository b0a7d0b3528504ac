# Print an optspec for argparse to handle cmd's options that are independent of any subcommand.
function __fish_pyats_image_build_global_optspecs
    string join \n t/tag= p/path= c/no-cache cache-ttl= k/keep-context n/dry-run v/verbose o/output= base= installer= platform= compression= format= pull= offline j/jobs= P/push skip-push-check cache-repo= cache-mode= cache-key-file= secret= label= annotation= work-dir= authfile= creds= ca-cert= insecure-registry= registry-mirror= accept-new-host-keys known-hosts= digest-file= iidfile= metadata-file= store= runner= progress= q/quiet h/help V/version
end

function __fish_pyats_image_build_needs_command
    # Figure out if the current invocation already has a command.
    set -l cmd (commandline -opc)
    set -e cmd[1]
    argparse -s (__fish_pyats_image_build_global_optspecs) -- $cmd 2>/dev/null
    or return
    if set -q argv[1]
        # Also print the command, so this can be used to figure out what it is.
        echo $argv[1]
        return 1
    end
    return 0
end

function __fish_pyats_image_build_using_subcommand
    set -l cmd (__fish_pyats_image_build_needs_command)
    test -z "$cmd"
    and return 1
    contains -- $cmd[1] $argv
end

complete -c pyats-image-build -n "__fish_pyats_image_build_needs_command" -s t -l tag -d 'Tag for the image. Overrides any tag defined in the YAML; the first is the main one' -r
complete -c pyats-image-build -n "__fish_pyats_image_build_needs_command" -s p -l path -d 'A folder to use as the context while building' -r -F
complete -c pyats-image-build -n "__fish_pyats_image_build_needs_command" -l cache-ttl -d 'Use nothing of the cache that is older, such as 12h or 14d' -r
complete -c pyats-image-build -n "__fish_pyats_image_build_needs_command" -s o -l output -d 'Write the image: oci-dir, oci-archive or docker-archive. Without it, the image stays in the store' -r
complete -c pyats-image-build -n "__fish_pyats_image_build_needs_command" -l base -d 'Base image instead of `python:X-slim`: a registry reference, oci:DIR[:TAG], oci-archive:FILE[:TAG] or docker-archive:FILE' -r
complete -c pyats-image-build -n "__fish_pyats_image_build_needs_command" -l installer -d 'Who installs the packages: pip or uv. Overrides the YAML\'s `installer` [default: pip]' -r
complete -c pyats-image-build -n "__fish_pyats_image_build_needs_command" -l platform -d 'What to pull and build for [default: this machine\'s]' -r
complete -c pyats-image-build -n "__fish_pyats_image_build_needs_command" -l compression -d 'Compression of the layers that are made here: gzip, zstd or none' -r
complete -c pyats-image-build -n "__fish_pyats_image_build_needs_command" -l format -d 'Media types of the image' -r -f -a "oci\t'The OCI image specification\'s'
docker\t'Docker\'s'"
complete -c pyats-image-build -n "__fish_pyats_image_build_needs_command" -l pull -d 'When to ask the registry for a newer base: always, missing or never [default: once an hour]' -r
complete -c pyats-image-build -n "__fish_pyats_image_build_needs_command" -s j -l jobs -d 'Sources and layers that are fetched side by side' -r
complete -c pyats-image-build -n "__fish_pyats_image_build_needs_command" -l cache-repo -d 'Share what steps make through this repository of a registry' -r
complete -c pyats-image-build -n "__fish_pyats_image_build_needs_command" -l cache-mode -d 'What is done with it: both, read or write' -r
complete -c pyats-image-build -n "__fish_pyats_image_build_needs_command" -l cache-key-file -d 'Sign what is put there with the key in this file, and use nothing that is not signed with it' -r -F
complete -c pyats-image-build -n "__fish_pyats_image_build_needs_command" -l secret -d 'Give steps a secret: RUN by `--mount=type=secret`; pip gets `pip.conf` and `netrc`' -r
complete -c pyats-image-build -n "__fish_pyats_image_build_needs_command" -l label -d 'Add a label to the image\'s config' -r
complete -c pyats-image-build -n "__fish_pyats_image_build_needs_command" -l annotation -d 'Add an annotation to the image\'s manifest' -r
complete -c pyats-image-build -n "__fish_pyats_image_build_needs_command" -l work-dir -d 'Where steps do their work [default: in the store]' -r -F
complete -c pyats-image-build -n "__fish_pyats_image_build_needs_command" -l authfile -d 'Logins for registries [default: those of podman and Docker]' -r -F
complete -c pyats-image-build -n "__fish_pyats_image_build_needs_command" -l creds -d 'The login for the registry; better hidden in PYATS_IMAGE_BUILD_USERNAME and PYATS_IMAGE_BUILD_PASSWORD' -r
complete -c pyats-image-build -n "__fish_pyats_image_build_needs_command" -l ca-cert -d 'Certificates to trust, beside the system\'s' -r -F
complete -c pyats-image-build -n "__fish_pyats_image_build_needs_command" -l insecure-registry -d 'Speak to this registry by plain HTTP, or without verifying its certificate' -r
complete -c pyats-image-build -n "__fish_pyats_image_build_needs_command" -l registry-mirror -d 'Ask this mirror before the registry, which is docker.io without a name' -r
complete -c pyats-image-build -n "__fish_pyats_image_build_needs_command" -l known-hosts -d 'Host keys of ssh servers [default: the user\'s file and the system\'s]' -r -F
complete -c pyats-image-build -n "__fish_pyats_image_build_needs_command" -l digest-file -d 'Write the manifest\'s digest to this file' -r -F
complete -c pyats-image-build -n "__fish_pyats_image_build_needs_command" -l iidfile -d 'Write the image\'s id (the config\'s digest) to this file' -r -F
complete -c pyats-image-build -n "__fish_pyats_image_build_needs_command" -l metadata-file -d 'Write what was built to this file, as JSON' -r -F
complete -c pyats-image-build -n "__fish_pyats_image_build_needs_command" -l store -d 'The folder with images, bases and cache [env: PYATS_IMAGE_BUILD_STORE] [default: pyats-image-build in the user\'s cache folder]' -r -F
complete -c pyats-image-build -n "__fish_pyats_image_build_needs_command" -l runner -d 'How steps are run: auto, root, userns-range, userns-single or chroot [default: auto]' -r
complete -c pyats-image-build -n "__fish_pyats_image_build_needs_command" -l progress -d 'How progress is shown' -r -f -a "auto\t'Bars on a terminal, else lines'
tty\t'Bars'
plain\t'Lines with times'
json\t'One JSON object a line, on standard error'"
complete -c pyats-image-build -n "__fish_pyats_image_build_needs_command" -s c -l no-cache -d 'Do not use the cache when building the image'
complete -c pyats-image-build -n "__fish_pyats_image_build_needs_command" -s k -l keep-context -d 'Prevents the context from being deleted once the image is built'
complete -c pyats-image-build -n "__fish_pyats_image_build_needs_command" -s n -l dry-run -d 'Set up the context and show the plan, but do not build the image'
complete -c pyats-image-build -n "__fish_pyats_image_build_needs_command" -s v -l verbose -d 'Print the output of the build\'s steps'
complete -c pyats-image-build -n "__fish_pyats_image_build_needs_command" -l offline -d 'Use only what the store has'
complete -c pyats-image-build -n "__fish_pyats_image_build_needs_command" -s P -l push -d 'Push the image once it is built, under all of its tags'
complete -c pyats-image-build -n "__fish_pyats_image_build_needs_command" -l skip-push-check -d 'Do not find out first whether pushing is allowed'
complete -c pyats-image-build -n "__fish_pyats_image_build_needs_command" -l accept-new-host-keys -d 'Take the host key of an ssh server that is not known yet for its own, and remember it'
complete -c pyats-image-build -n "__fish_pyats_image_build_needs_command" -s q -l quiet -d 'Show nothing but errors'
complete -c pyats-image-build -n "__fish_pyats_image_build_needs_command" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c pyats-image-build -n "__fish_pyats_image_build_needs_command" -s V -l version -d 'Print version'
complete -c pyats-image-build -n "__fish_pyats_image_build_needs_command" -a "inspect" -d 'Show an image as `docker image inspect` does'
complete -c pyats-image-build -n "__fish_pyats_image_build_needs_command" -a "tag" -d 'Give an image of the store further tags'
complete -c pyats-image-build -n "__fish_pyats_image_build_needs_command" -a "run" -d 'Run a command in an image'
complete -c pyats-image-build -n "__fish_pyats_image_build_needs_command" -a "doctor" -d 'Say what this machine allows, and the remedy for what it does not'
complete -c pyats-image-build -n "__fish_pyats_image_build_needs_command" -a "completions" -d 'Print a completion script for a shell'
complete -c pyats-image-build -n "__fish_pyats_image_build_needs_command" -a "man" -d 'Print the manual page'
complete -c pyats-image-build -n "__fish_pyats_image_build_needs_command" -a "push" -d 'Push an image to a registry'
complete -c pyats-image-build -n "__fish_pyats_image_build_needs_command" -a "login" -d 'Keep a login for a registry, once it did'
complete -c pyats-image-build -n "__fish_pyats_image_build_needs_command" -a "logout" -d 'Forget the login for a registry'
complete -c pyats-image-build -n "__fish_pyats_image_build_needs_command" -a "cache" -d 'Look at what the store holds, and remove what is not needed'
complete -c pyats-image-build -n "__fish_pyats_image_build_needs_command" -a "schema" -d 'Print a JSON Schema of the build file, for editors'
complete -c pyats-image-build -n "__fish_pyats_image_build_needs_command" -a "help" -d 'Print this message or the help of the given subcommand(s)'
complete -c pyats-image-build -n "__fish_pyats_image_build_using_subcommand inspect" -l store -d 'The folder with images, bases and cache [env: PYATS_IMAGE_BUILD_STORE] [default: pyats-image-build in the user\'s cache folder]' -r -F
complete -c pyats-image-build -n "__fish_pyats_image_build_using_subcommand inspect" -l runner -d 'How steps are run: auto, root, userns-range, userns-single or chroot [default: auto]' -r
complete -c pyats-image-build -n "__fish_pyats_image_build_using_subcommand inspect" -l progress -d 'How progress is shown' -r -f -a "auto\t'Bars on a terminal, else lines'
tty\t'Bars'
plain\t'Lines with times'
json\t'One JSON object a line, on standard error'"
complete -c pyats-image-build -n "__fish_pyats_image_build_using_subcommand inspect" -s q -l quiet -d 'Show nothing but errors'
complete -c pyats-image-build -n "__fish_pyats_image_build_using_subcommand inspect" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c pyats-image-build -n "__fish_pyats_image_build_using_subcommand tag" -l store -d 'The folder with images, bases and cache [env: PYATS_IMAGE_BUILD_STORE] [default: pyats-image-build in the user\'s cache folder]' -r -F
complete -c pyats-image-build -n "__fish_pyats_image_build_using_subcommand tag" -l runner -d 'How steps are run: auto, root, userns-range, userns-single or chroot [default: auto]' -r
complete -c pyats-image-build -n "__fish_pyats_image_build_using_subcommand tag" -l progress -d 'How progress is shown' -r -f -a "auto\t'Bars on a terminal, else lines'
tty\t'Bars'
plain\t'Lines with times'
json\t'One JSON object a line, on standard error'"
complete -c pyats-image-build -n "__fish_pyats_image_build_using_subcommand tag" -s q -l quiet -d 'Show nothing but errors'
complete -c pyats-image-build -n "__fish_pyats_image_build_using_subcommand tag" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c pyats-image-build -n "__fish_pyats_image_build_using_subcommand run" -s v -l volume -d 'Mount a file or directory of this machine, named by an absolute path or one that begins with `./`; `:ro` for read-only' -r
complete -c pyats-image-build -n "__fish_pyats_image_build_using_subcommand run" -s e -l env -d 'Set an environment variable; without a value, the one of this environment' -r
complete -c pyats-image-build -n "__fish_pyats_image_build_using_subcommand run" -l env-file -d 'Set the environment variables in a file, one `NAME[=VALUE]` per line; `--env` wins' -r -F
complete -c pyats-image-build -n "__fish_pyats_image_build_using_subcommand run" -s u -l user -d 'Run the command as this user of the image, by name or number' -r
complete -c pyats-image-build -n "__fish_pyats_image_build_using_subcommand run" -s w -l workdir -d 'Where the command starts' -r -F
complete -c pyats-image-build -n "__fish_pyats_image_build_using_subcommand run" -l entrypoint -d 'Replace the image\'s entrypoint; empty for none' -r
complete -c pyats-image-build -n "__fish_pyats_image_build_using_subcommand run" -l store -d 'The folder with images, bases and cache [env: PYATS_IMAGE_BUILD_STORE] [default: pyats-image-build in the user\'s cache folder]' -r -F
complete -c pyats-image-build -n "__fish_pyats_image_build_using_subcommand run" -l runner -d 'How steps are run: auto, root, userns-range, userns-single or chroot [default: auto]' -r
complete -c pyats-image-build -n "__fish_pyats_image_build_using_subcommand run" -l progress -d 'How progress is shown' -r -f -a "auto\t'Bars on a terminal, else lines'
tty\t'Bars'
plain\t'Lines with times'
json\t'One JSON object a line, on standard error'"
complete -c pyats-image-build -n "__fish_pyats_image_build_using_subcommand run" -s i -l interactive -d 'Let the command read standard input'
complete -c pyats-image-build -n "__fish_pyats_image_build_using_subcommand run" -s t -l tty -d 'Give the command this terminal'
complete -c pyats-image-build -n "__fish_pyats_image_build_using_subcommand run" -l rm -d 'Accepted for Docker\'s sake: what a command writes never stays'
complete -c pyats-image-build -n "__fish_pyats_image_build_using_subcommand run" -s q -l quiet -d 'Show nothing but errors'
complete -c pyats-image-build -n "__fish_pyats_image_build_using_subcommand run" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c pyats-image-build -n "__fish_pyats_image_build_using_subcommand doctor" -l base -d 'Look whether this base can be had' -r
complete -c pyats-image-build -n "__fish_pyats_image_build_using_subcommand doctor" -l authfile -d 'Logins for registries [default: those of podman and Docker]' -r -F
complete -c pyats-image-build -n "__fish_pyats_image_build_using_subcommand doctor" -l creds -d 'The login for the registry; better hidden in PYATS_IMAGE_BUILD_USERNAME and PYATS_IMAGE_BUILD_PASSWORD' -r
complete -c pyats-image-build -n "__fish_pyats_image_build_using_subcommand doctor" -l ca-cert -d 'Certificates to trust, beside the system\'s' -r -F
complete -c pyats-image-build -n "__fish_pyats_image_build_using_subcommand doctor" -l insecure-registry -d 'Speak to this registry by plain HTTP, or without verifying its certificate' -r
complete -c pyats-image-build -n "__fish_pyats_image_build_using_subcommand doctor" -l store -d 'The folder with images, bases and cache [env: PYATS_IMAGE_BUILD_STORE] [default: pyats-image-build in the user\'s cache folder]' -r -F
complete -c pyats-image-build -n "__fish_pyats_image_build_using_subcommand doctor" -l runner -d 'How steps are run: auto, root, userns-range, userns-single or chroot [default: auto]' -r
complete -c pyats-image-build -n "__fish_pyats_image_build_using_subcommand doctor" -l progress -d 'How progress is shown' -r -f -a "auto\t'Bars on a terminal, else lines'
tty\t'Bars'
plain\t'Lines with times'
json\t'One JSON object a line, on standard error'"
complete -c pyats-image-build -n "__fish_pyats_image_build_using_subcommand doctor" -l json -d 'Print JSON'
complete -c pyats-image-build -n "__fish_pyats_image_build_using_subcommand doctor" -l offline -d 'Ask no other machine'
complete -c pyats-image-build -n "__fish_pyats_image_build_using_subcommand doctor" -s q -l quiet -d 'Show nothing but errors'
complete -c pyats-image-build -n "__fish_pyats_image_build_using_subcommand doctor" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c pyats-image-build -n "__fish_pyats_image_build_using_subcommand completions" -l store -d 'The folder with images, bases and cache [env: PYATS_IMAGE_BUILD_STORE] [default: pyats-image-build in the user\'s cache folder]' -r -F
complete -c pyats-image-build -n "__fish_pyats_image_build_using_subcommand completions" -l runner -d 'How steps are run: auto, root, userns-range, userns-single or chroot [default: auto]' -r
complete -c pyats-image-build -n "__fish_pyats_image_build_using_subcommand completions" -l progress -d 'How progress is shown' -r -f -a "auto\t'Bars on a terminal, else lines'
tty\t'Bars'
plain\t'Lines with times'
json\t'One JSON object a line, on standard error'"
complete -c pyats-image-build -n "__fish_pyats_image_build_using_subcommand completions" -s q -l quiet -d 'Show nothing but errors'
complete -c pyats-image-build -n "__fish_pyats_image_build_using_subcommand completions" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c pyats-image-build -n "__fish_pyats_image_build_using_subcommand man" -l store -d 'The folder with images, bases and cache [env: PYATS_IMAGE_BUILD_STORE] [default: pyats-image-build in the user\'s cache folder]' -r -F
complete -c pyats-image-build -n "__fish_pyats_image_build_using_subcommand man" -l runner -d 'How steps are run: auto, root, userns-range, userns-single or chroot [default: auto]' -r
complete -c pyats-image-build -n "__fish_pyats_image_build_using_subcommand man" -l progress -d 'How progress is shown' -r -f -a "auto\t'Bars on a terminal, else lines'
tty\t'Bars'
plain\t'Lines with times'
json\t'One JSON object a line, on standard error'"
complete -c pyats-image-build -n "__fish_pyats_image_build_using_subcommand man" -s q -l quiet -d 'Show nothing but errors'
complete -c pyats-image-build -n "__fish_pyats_image_build_using_subcommand man" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c pyats-image-build -n "__fish_pyats_image_build_using_subcommand push" -l format -d 'Change the media types; without it they stay as they are' -r -f -a "oci\t'The OCI image specification\'s'
docker\t'Docker\'s'"
complete -c pyats-image-build -n "__fish_pyats_image_build_using_subcommand push" -l authfile -d 'Logins for registries [default: those of podman and Docker]' -r -F
complete -c pyats-image-build -n "__fish_pyats_image_build_using_subcommand push" -l creds -d 'The login for the registry; better hidden in PYATS_IMAGE_BUILD_USERNAME and PYATS_IMAGE_BUILD_PASSWORD' -r
complete -c pyats-image-build -n "__fish_pyats_image_build_using_subcommand push" -l ca-cert -d 'Certificates to trust, beside the system\'s' -r -F
complete -c pyats-image-build -n "__fish_pyats_image_build_using_subcommand push" -l insecure-registry -d 'Speak to this registry by plain HTTP, or without verifying its certificate' -r
complete -c pyats-image-build -n "__fish_pyats_image_build_using_subcommand push" -s j -l jobs -d 'Layers that are sent side by side' -r
complete -c pyats-image-build -n "__fish_pyats_image_build_using_subcommand push" -l digest-file -d 'Write the manifest\'s digest to this file' -r -F
complete -c pyats-image-build -n "__fish_pyats_image_build_using_subcommand push" -l metadata-file -d 'Write what was pushed to this file, as JSON' -r -F
complete -c pyats-image-build -n "__fish_pyats_image_build_using_subcommand push" -l store -d 'The folder with images, bases and cache [env: PYATS_IMAGE_BUILD_STORE] [default: pyats-image-build in the user\'s cache folder]' -r -F
complete -c pyats-image-build -n "__fish_pyats_image_build_using_subcommand push" -l runner -d 'How steps are run: auto, root, userns-range, userns-single or chroot [default: auto]' -r
complete -c pyats-image-build -n "__fish_pyats_image_build_using_subcommand push" -l progress -d 'How progress is shown' -r -f -a "auto\t'Bars on a terminal, else lines'
tty\t'Bars'
plain\t'Lines with times'
json\t'One JSON object a line, on standard error'"
complete -c pyats-image-build -n "__fish_pyats_image_build_using_subcommand push" -s q -l quiet -d 'Show nothing but errors'
complete -c pyats-image-build -n "__fish_pyats_image_build_using_subcommand push" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c pyats-image-build -n "__fish_pyats_image_build_using_subcommand login" -s u -l username -d 'User name; asked for without' -r
complete -c pyats-image-build -n "__fish_pyats_image_build_using_subcommand login" -s p -l password -d 'Password; others on this machine may see it' -r
complete -c pyats-image-build -n "__fish_pyats_image_build_using_subcommand login" -l authfile -d 'Logins for registries [default: those of podman and Docker]' -r -F
complete -c pyats-image-build -n "__fish_pyats_image_build_using_subcommand login" -l creds -d 'The login for the registry; better hidden in PYATS_IMAGE_BUILD_USERNAME and PYATS_IMAGE_BUILD_PASSWORD' -r
complete -c pyats-image-build -n "__fish_pyats_image_build_using_subcommand login" -l ca-cert -d 'Certificates to trust, beside the system\'s' -r -F
complete -c pyats-image-build -n "__fish_pyats_image_build_using_subcommand login" -l insecure-registry -d 'Speak to this registry by plain HTTP, or without verifying its certificate' -r
complete -c pyats-image-build -n "__fish_pyats_image_build_using_subcommand login" -l store -d 'The folder with images, bases and cache [env: PYATS_IMAGE_BUILD_STORE] [default: pyats-image-build in the user\'s cache folder]' -r -F
complete -c pyats-image-build -n "__fish_pyats_image_build_using_subcommand login" -l runner -d 'How steps are run: auto, root, userns-range, userns-single or chroot [default: auto]' -r
complete -c pyats-image-build -n "__fish_pyats_image_build_using_subcommand login" -l progress -d 'How progress is shown' -r -f -a "auto\t'Bars on a terminal, else lines'
tty\t'Bars'
plain\t'Lines with times'
json\t'One JSON object a line, on standard error'"
complete -c pyats-image-build -n "__fish_pyats_image_build_using_subcommand login" -l password-stdin -d 'Read the password from standard input'
complete -c pyats-image-build -n "__fish_pyats_image_build_using_subcommand login" -s q -l quiet -d 'Show nothing but errors'
complete -c pyats-image-build -n "__fish_pyats_image_build_using_subcommand login" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c pyats-image-build -n "__fish_pyats_image_build_using_subcommand logout" -l authfile -d 'Logins for registries [default: those of podman and Docker]' -r -F
complete -c pyats-image-build -n "__fish_pyats_image_build_using_subcommand logout" -l store -d 'The folder with images, bases and cache [env: PYATS_IMAGE_BUILD_STORE] [default: pyats-image-build in the user\'s cache folder]' -r -F
complete -c pyats-image-build -n "__fish_pyats_image_build_using_subcommand logout" -l runner -d 'How steps are run: auto, root, userns-range, userns-single or chroot [default: auto]' -r
complete -c pyats-image-build -n "__fish_pyats_image_build_using_subcommand logout" -l progress -d 'How progress is shown' -r -f -a "auto\t'Bars on a terminal, else lines'
tty\t'Bars'
plain\t'Lines with times'
json\t'One JSON object a line, on standard error'"
complete -c pyats-image-build -n "__fish_pyats_image_build_using_subcommand logout" -l all -d 'Forget all logins of the file'
complete -c pyats-image-build -n "__fish_pyats_image_build_using_subcommand logout" -s q -l quiet -d 'Show nothing but errors'
complete -c pyats-image-build -n "__fish_pyats_image_build_using_subcommand logout" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c pyats-image-build -n "__fish_pyats_image_build_using_subcommand cache; and not __fish_seen_subcommand_from ls prune export import help" -l store -d 'The folder with images, bases and cache [env: PYATS_IMAGE_BUILD_STORE] [default: pyats-image-build in the user\'s cache folder]' -r -F
complete -c pyats-image-build -n "__fish_pyats_image_build_using_subcommand cache; and not __fish_seen_subcommand_from ls prune export import help" -l runner -d 'How steps are run: auto, root, userns-range, userns-single or chroot [default: auto]' -r
complete -c pyats-image-build -n "__fish_pyats_image_build_using_subcommand cache; and not __fish_seen_subcommand_from ls prune export import help" -l progress -d 'How progress is shown' -r -f -a "auto\t'Bars on a terminal, else lines'
tty\t'Bars'
plain\t'Lines with times'
json\t'One JSON object a line, on standard error'"
complete -c pyats-image-build -n "__fish_pyats_image_build_using_subcommand cache; and not __fish_seen_subcommand_from ls prune export import help" -s q -l quiet -d 'Show nothing but errors'
complete -c pyats-image-build -n "__fish_pyats_image_build_using_subcommand cache; and not __fish_seen_subcommand_from ls prune export import help" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c pyats-image-build -n "__fish_pyats_image_build_using_subcommand cache; and not __fish_seen_subcommand_from ls prune export import help" -f -a "ls" -d 'List what the store holds, and when it was last used'
complete -c pyats-image-build -n "__fish_pyats_image_build_using_subcommand cache; and not __fish_seen_subcommand_from ls prune export import help" -f -a "prune" -d 'Remove what was not used for a while; never what a running build uses'
complete -c pyats-image-build -n "__fish_pyats_image_build_using_subcommand cache; and not __fish_seen_subcommand_from ls prune export import help" -f -a "export" -d 'Write what steps made to a folder, for a CI system that keeps it'
complete -c pyats-image-build -n "__fish_pyats_image_build_using_subcommand cache; and not __fish_seen_subcommand_from ls prune export import help" -f -a "import" -d 'Take what steps made from such a folder; nothing there is nothing to take'
complete -c pyats-image-build -n "__fish_pyats_image_build_using_subcommand cache; and not __fish_seen_subcommand_from ls prune export import help" -f -a "help" -d 'Print this message or the help of the given subcommand(s)'
complete -c pyats-image-build -n "__fish_pyats_image_build_using_subcommand cache; and __fish_seen_subcommand_from ls" -l store -d 'The folder with images, bases and cache [env: PYATS_IMAGE_BUILD_STORE] [default: pyats-image-build in the user\'s cache folder]' -r -F
complete -c pyats-image-build -n "__fish_pyats_image_build_using_subcommand cache; and __fish_seen_subcommand_from ls" -l runner -d 'How steps are run: auto, root, userns-range, userns-single or chroot [default: auto]' -r
complete -c pyats-image-build -n "__fish_pyats_image_build_using_subcommand cache; and __fish_seen_subcommand_from ls" -l progress -d 'How progress is shown' -r -f -a "auto\t'Bars on a terminal, else lines'
tty\t'Bars'
plain\t'Lines with times'
json\t'One JSON object a line, on standard error'"
complete -c pyats-image-build -n "__fish_pyats_image_build_using_subcommand cache; and __fish_seen_subcommand_from ls" -l json -d 'As JSON'
complete -c pyats-image-build -n "__fish_pyats_image_build_using_subcommand cache; and __fish_seen_subcommand_from ls" -s q -l quiet -d 'Show nothing but errors'
complete -c pyats-image-build -n "__fish_pyats_image_build_using_subcommand cache; and __fish_seen_subcommand_from ls" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c pyats-image-build -n "__fish_pyats_image_build_using_subcommand cache; and __fish_seen_subcommand_from prune" -l older-than -d 'What was not used for so long, such as 12h or 14d' -r
complete -c pyats-image-build -n "__fish_pyats_image_build_using_subcommand cache; and __fish_seen_subcommand_from prune" -l max-size -d 'And what was not used for longest, until the store has no more than this, such as 500MB or 20GB' -r
complete -c pyats-image-build -n "__fish_pyats_image_build_using_subcommand cache; and __fish_seen_subcommand_from prune" -l store -d 'The folder with images, bases and cache [env: PYATS_IMAGE_BUILD_STORE] [default: pyats-image-build in the user\'s cache folder]' -r -F
complete -c pyats-image-build -n "__fish_pyats_image_build_using_subcommand cache; and __fish_seen_subcommand_from prune" -l runner -d 'How steps are run: auto, root, userns-range, userns-single or chroot [default: auto]' -r
complete -c pyats-image-build -n "__fish_pyats_image_build_using_subcommand cache; and __fish_seen_subcommand_from prune" -l progress -d 'How progress is shown' -r -f -a "auto\t'Bars on a terminal, else lines'
tty\t'Bars'
plain\t'Lines with times'
json\t'One JSON object a line, on standard error'"
complete -c pyats-image-build -n "__fish_pyats_image_build_using_subcommand cache; and __fish_seen_subcommand_from prune" -s a -l all -d 'Whatever was not used since the oldest running build began, images under their tags included'
complete -c pyats-image-build -n "__fish_pyats_image_build_using_subcommand cache; and __fish_seen_subcommand_from prune" -s n -l dry-run -d 'Say what would be removed, and remove nothing'
complete -c pyats-image-build -n "__fish_pyats_image_build_using_subcommand cache; and __fish_seen_subcommand_from prune" -s q -l quiet -d 'Show nothing but errors'
complete -c pyats-image-build -n "__fish_pyats_image_build_using_subcommand cache; and __fish_seen_subcommand_from prune" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c pyats-image-build -n "__fish_pyats_image_build_using_subcommand cache; and __fish_seen_subcommand_from export" -l cache-key-file -d 'Sign entries with the key in this file, and take none that is not signed with it' -r -F
complete -c pyats-image-build -n "__fish_pyats_image_build_using_subcommand cache; and __fish_seen_subcommand_from export" -l store -d 'The folder with images, bases and cache [env: PYATS_IMAGE_BUILD_STORE] [default: pyats-image-build in the user\'s cache folder]' -r -F
complete -c pyats-image-build -n "__fish_pyats_image_build_using_subcommand cache; and __fish_seen_subcommand_from export" -l runner -d 'How steps are run: auto, root, userns-range, userns-single or chroot [default: auto]' -r
complete -c pyats-image-build -n "__fish_pyats_image_build_using_subcommand cache; and __fish_seen_subcommand_from export" -l progress -d 'How progress is shown' -r -f -a "auto\t'Bars on a terminal, else lines'
tty\t'Bars'
plain\t'Lines with times'
json\t'One JSON object a line, on standard error'"
complete -c pyats-image-build -n "__fish_pyats_image_build_using_subcommand cache; and __fish_seen_subcommand_from export" -s q -l quiet -d 'Show nothing but errors'
complete -c pyats-image-build -n "__fish_pyats_image_build_using_subcommand cache; and __fish_seen_subcommand_from export" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c pyats-image-build -n "__fish_pyats_image_build_using_subcommand cache; and __fish_seen_subcommand_from import" -l cache-key-file -d 'Sign entries with the key in this file, and take none that is not signed with it' -r -F
complete -c pyats-image-build -n "__fish_pyats_image_build_using_subcommand cache; and __fish_seen_subcommand_from import" -l store -d 'The folder with images, bases and cache [env: PYATS_IMAGE_BUILD_STORE] [default: pyats-image-build in the user\'s cache folder]' -r -F
complete -c pyats-image-build -n "__fish_pyats_image_build_using_subcommand cache; and __fish_seen_subcommand_from import" -l runner -d 'How steps are run: auto, root, userns-range, userns-single or chroot [default: auto]' -r
complete -c pyats-image-build -n "__fish_pyats_image_build_using_subcommand cache; and __fish_seen_subcommand_from import" -l progress -d 'How progress is shown' -r -f -a "auto\t'Bars on a terminal, else lines'
tty\t'Bars'
plain\t'Lines with times'
json\t'One JSON object a line, on standard error'"
complete -c pyats-image-build -n "__fish_pyats_image_build_using_subcommand cache; and __fish_seen_subcommand_from import" -s q -l quiet -d 'Show nothing but errors'
complete -c pyats-image-build -n "__fish_pyats_image_build_using_subcommand cache; and __fish_seen_subcommand_from import" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c pyats-image-build -n "__fish_pyats_image_build_using_subcommand cache; and __fish_seen_subcommand_from help" -f -a "ls" -d 'List what the store holds, and when it was last used'
complete -c pyats-image-build -n "__fish_pyats_image_build_using_subcommand cache; and __fish_seen_subcommand_from help" -f -a "prune" -d 'Remove what was not used for a while; never what a running build uses'
complete -c pyats-image-build -n "__fish_pyats_image_build_using_subcommand cache; and __fish_seen_subcommand_from help" -f -a "export" -d 'Write what steps made to a folder, for a CI system that keeps it'
complete -c pyats-image-build -n "__fish_pyats_image_build_using_subcommand cache; and __fish_seen_subcommand_from help" -f -a "import" -d 'Take what steps made from such a folder; nothing there is nothing to take'
complete -c pyats-image-build -n "__fish_pyats_image_build_using_subcommand cache; and __fish_seen_subcommand_from help" -f -a "help" -d 'Print this message or the help of the given subcommand(s)'
complete -c pyats-image-build -n "__fish_pyats_image_build_using_subcommand schema" -l store -d 'The folder with images, bases and cache [env: PYATS_IMAGE_BUILD_STORE] [default: pyats-image-build in the user\'s cache folder]' -r -F
complete -c pyats-image-build -n "__fish_pyats_image_build_using_subcommand schema" -l runner -d 'How steps are run: auto, root, userns-range, userns-single or chroot [default: auto]' -r
complete -c pyats-image-build -n "__fish_pyats_image_build_using_subcommand schema" -l progress -d 'How progress is shown' -r -f -a "auto\t'Bars on a terminal, else lines'
tty\t'Bars'
plain\t'Lines with times'
json\t'One JSON object a line, on standard error'"
complete -c pyats-image-build -n "__fish_pyats_image_build_using_subcommand schema" -s q -l quiet -d 'Show nothing but errors'
complete -c pyats-image-build -n "__fish_pyats_image_build_using_subcommand schema" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c pyats-image-build -n "__fish_pyats_image_build_using_subcommand help; and not __fish_seen_subcommand_from inspect tag run doctor completions man push login logout cache schema help" -f -a "inspect" -d 'Show an image as `docker image inspect` does'
complete -c pyats-image-build -n "__fish_pyats_image_build_using_subcommand help; and not __fish_seen_subcommand_from inspect tag run doctor completions man push login logout cache schema help" -f -a "tag" -d 'Give an image of the store further tags'
complete -c pyats-image-build -n "__fish_pyats_image_build_using_subcommand help; and not __fish_seen_subcommand_from inspect tag run doctor completions man push login logout cache schema help" -f -a "run" -d 'Run a command in an image'
complete -c pyats-image-build -n "__fish_pyats_image_build_using_subcommand help; and not __fish_seen_subcommand_from inspect tag run doctor completions man push login logout cache schema help" -f -a "doctor" -d 'Say what this machine allows, and the remedy for what it does not'
complete -c pyats-image-build -n "__fish_pyats_image_build_using_subcommand help; and not __fish_seen_subcommand_from inspect tag run doctor completions man push login logout cache schema help" -f -a "completions" -d 'Print a completion script for a shell'
complete -c pyats-image-build -n "__fish_pyats_image_build_using_subcommand help; and not __fish_seen_subcommand_from inspect tag run doctor completions man push login logout cache schema help" -f -a "man" -d 'Print the manual page'
complete -c pyats-image-build -n "__fish_pyats_image_build_using_subcommand help; and not __fish_seen_subcommand_from inspect tag run doctor completions man push login logout cache schema help" -f -a "push" -d 'Push an image to a registry'
complete -c pyats-image-build -n "__fish_pyats_image_build_using_subcommand help; and not __fish_seen_subcommand_from inspect tag run doctor completions man push login logout cache schema help" -f -a "login" -d 'Keep a login for a registry, once it did'
complete -c pyats-image-build -n "__fish_pyats_image_build_using_subcommand help; and not __fish_seen_subcommand_from inspect tag run doctor completions man push login logout cache schema help" -f -a "logout" -d 'Forget the login for a registry'
complete -c pyats-image-build -n "__fish_pyats_image_build_using_subcommand help; and not __fish_seen_subcommand_from inspect tag run doctor completions man push login logout cache schema help" -f -a "cache" -d 'Look at what the store holds, and remove what is not needed'
complete -c pyats-image-build -n "__fish_pyats_image_build_using_subcommand help; and not __fish_seen_subcommand_from inspect tag run doctor completions man push login logout cache schema help" -f -a "schema" -d 'Print a JSON Schema of the build file, for editors'
complete -c pyats-image-build -n "__fish_pyats_image_build_using_subcommand help; and not __fish_seen_subcommand_from inspect tag run doctor completions man push login logout cache schema help" -f -a "help" -d 'Print this message or the help of the given subcommand(s)'
complete -c pyats-image-build -n "__fish_pyats_image_build_using_subcommand help; and __fish_seen_subcommand_from cache" -f -a "ls" -d 'List what the store holds, and when it was last used'
complete -c pyats-image-build -n "__fish_pyats_image_build_using_subcommand help; and __fish_seen_subcommand_from cache" -f -a "prune" -d 'Remove what was not used for a while; never what a running build uses'
complete -c pyats-image-build -n "__fish_pyats_image_build_using_subcommand help; and __fish_seen_subcommand_from cache" -f -a "export" -d 'Write what steps made to a folder, for a CI system that keeps it'
complete -c pyats-image-build -n "__fish_pyats_image_build_using_subcommand help; and __fish_seen_subcommand_from cache" -f -a "import" -d 'Take what steps made from such a folder; nothing there is nothing to take'
