# The minimal Consul ACL policy of svcagent on one host (Consul 1.4 and later).
#
# Replace three placeholders:
#   NODE     this host's node name in Consul (consul members shows it),
#   SERVICE  a service that services.d defines: its name, not its ID. Repeat both rules for each,
#   LOCK     the reload.lock of a definition that sets one. Repeat the rule for each, or leave it out,
# Then create a token with this policy, using a token that may write ACLs:
#
#   sed 's/NODE/host-1/; s/SERVICE/keyword-suggest/; s/LOCK/keyword_suggest_reload/' policy.hcl |
#     consul acl policy create -name svcagent-host-1 -rules -
#   consul acl token create -description 'svcagent on host-1' -policy-name svcagent-host-1
#
# svcagent doctor then reports the rules that the token lacks.
#
# To use one policy for all hosts, replace agent and session by agent_prefix "" and session_prefix "".
#
# Keep the token valid as long as its services are registered: Consul's agent uses it to report their state to the servers.
# Once it is deleted, the catalog's state of these services no longer changes.

# The local agent's node name and datacenter, which every verb but status reads first.
agent "NODE" { policy = "read" }

# Reading whether enough other instances, on other nodes, pass before one is drained, and whether maintenance has reached
# the catalog. Without this rule Consul's answers are empty; svcagent reports that instead of relying on them.
node_prefix "" { policy = "read" }

# Registering the service and its checks, its maintenance, and reading them back (write includes read).
service "SERVICE" { policy = "write" }

# The session that holds the reload lock, or waits for it.
session "NODE" { policy = "write" }

# Reading whether another host's reload still runs, for a service that this host does not define. Consul hides sessions
# that the token may not read, and a hidden session looks like a reload that disappeared.
session_prefix "" { policy = "read" }

# The lock svcagent/<service>/lock, the queue for every lock of the service, and the documents that hosts share: the
# wanted version, quarantine, pause, states, history and sent notifications. With write access one can choose among the
# versions that hosts have seen under the tag, and pause reloads. Keys are in lower case: write the service's name in lower case here.
key_prefix "svcagent/SERVICE/" { policy = "write" }

# A lock with another name, such as one shared with consul lock.
key_prefix "LOCK/" { policy = "write" }

# Only for svcagent maint enable --node and disable --node. Leave it out if operators use another token for that.
node "NODE" { policy = "write" }
