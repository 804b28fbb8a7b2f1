//! Making, joining and leaving conversations; members; reading positions.

use proto::error::ErrorCode;
use proto::ids::direct_conversation_id;
use proto::limits::{MEMBERS_LIMIT_DEFAULT, MEMBERS_LIMIT_MAX};
use proto::v1::{Conversation, CreateConversation, Failure, Member, Members};

use super::events::Happening;
use super::{Operations, Result};
use crate::domain::UserId;
use crate::domain::conversation::{Kind, Plan, plan};
use crate::domain::delivery::ConnectionId;
use crate::domain::reject::{NOT_A_MEMBER, NOT_FOUND, Reject};
use crate::ports::{ConversationInfo, Created, Ensure, MembersChanged, NewGroup};
use crate::store::failure;

/// A read position to be set.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ReadMark<'a> {
    /// Who read.
    pub user: UserId,
    /// Where.
    pub conversation_id: &'a str,
    /// Up to where.
    pub read_seq: u64,
}

impl Operations {
    /// Makes a conversation, or gives the direct one that exists. `origin` is the asking connection, if any.
    pub(crate) fn create(
        &self,
        user: UserId,
        request: &CreateConversation,
        origin: Option<ConnectionId>,
    ) -> Result<Conversation> {
        let username = self.username(user)?;
        match plan(request, &username).map_err(Reject::failure)? {
            Plan::Direct { with, expected_id } => {
                self.create_direct(user, &username, with, expected_id, origin)
            }
            Plan::Group { id, name, members } => {
                self.create_group(user, &username, id, name, members, origin)
            }
        }
    }

    fn create_direct(
        &self,
        user: UserId,
        username: &str,
        with: &str,
        expected_id: Option<&str>,
        origin: Option<ConnectionId>,
    ) -> Result<Conversation> {
        let other = self.user_ids(&[with.to_owned()])?[0];
        let (low, high) = (user.min(other), user.max(other));
        let id = direct_conversation_id(low, high);
        if expected_id.is_some_and(|expected| expected != id) {
            return Err(
                ErrorCode::BadRequest.failure("conversation_id is not that of these two users")
            );
        }
        let known = self.store.conversation_of(&id, user).map_err(|error| failure(&error))?;
        if let Some((info, _)) = known {
            return self.view(info.no, user);
        }
        let made = self.store.ensure(&[Ensure::Direct { low, high }], self.next_id()?);
        let made = made.map_err(|error| failure(&error))?.pop().flatten();
        let no = made.ok_or_else(|| ErrorCode::UserNotFound.failure("no such user"))?.no;
        self.tell(&Happening {
            no,
            conversation_id: &id,
            event: "created",
            user,
            username,
            origin,
        });
        self.view(no, user)
    }

    fn create_group(
        &self,
        user: UserId,
        username: &str,
        id: Option<&str>,
        name: &str,
        members: &[String],
        origin: Option<ConnectionId>,
    ) -> Result<Conversation> {
        let members = self.user_ids(members)?;
        let id = match id {
            Some(id) => id.to_owned(),
            None => format!("g_{}", self.next_id()?),
        };
        let group = NewGroup { id: &id, name, owner: user, members: &members };
        let no = match self
            .store
            .create_group(&group, self.next_id()?)
            .map_err(|error| failure(&error))?
        {
            Created::New(no) => no,
            Created::Taken => {
                return Err(ErrorCode::AlreadyExists.failure("this conversation_id is taken"));
            }
        };
        let mut joined = members;
        joined.push(user);
        let change = MembersChanged {
            conversation_id: &id,
            is_new: true,
            joined: &joined,
            ..MembersChanged::default()
        };
        self.notifier.members_changed(&change).map_err(|error| failure(&error))?;
        self.tell(&Happening {
            no,
            conversation_id: &id,
            event: "created",
            user,
            username,
            origin,
        });
        self.view(no, user)
    }

    fn user_ids(&self, names: &[String]) -> Result<Vec<UserId>> {
        let id = |name: &String| {
            let user = self.store.user_by_name(name).map_err(|error| failure(&error))?;
            user.map(|user| user.id).ok_or_else(|| {
                let shown: String = name.chars().take(32).collect();
                ErrorCode::UserNotFound.failure(format!("no user is named {shown:?}"))
            })
        };
        names.iter().map(id).collect()
    }

    /// Takes the user into a group.
    pub(crate) fn join(
        &self,
        user: UserId,
        id: &str,
        origin: Option<ConnectionId>,
    ) -> Result<Conversation> {
        let (info, _) = self.group(user, id)?;
        let username = self.username(user)?;
        let joined = self.store.join(&info, user, self.next_id()?);
        let joined = joined.map_err(|error| failure(&error))?;
        // Also for those who are in: an earlier attempt may have ended before everybody was told.
        self.members_changed(id, &[user], &[])?;
        if joined {
            let (no, username) = (info.no, username.as_str());
            self.tell(&Happening {
                no,
                conversation_id: id,
                event: "joined",
                user,
                username,
                origin,
            });
        }
        self.view(info.no, user)
    }

    /// Takes the user out of a group; gives the conversation as it was, without the user.
    pub(crate) fn leave(
        &self,
        user: UserId,
        id: &str,
        origin: Option<ConnectionId>,
    ) -> Result<Conversation> {
        let (info, member) = self.group(user, id)?;
        if !member {
            // An earlier attempt may have ended before everybody was told.
            self.members_changed(id, &[], &[user])?;
            return Err(NOT_A_MEMBER.failure());
        }
        let mut left = self.view(info.no, user)?;
        let username = self.username(user)?;
        let is_out = self.store.leave(&info, user).map_err(|error| failure(&error))?;
        // Also if somebody else was faster: this answer, too, is a word that the user is out.
        self.members_changed(id, &[], &[user])?;
        if !is_out {
            return Err(NOT_A_MEMBER.failure());
        }
        let (no, username) = (info.no, username.as_str());
        self.tell(&Happening { no, conversation_id: id, event: "left", user, username, origin });
        left.member_count = left.member_count.saturating_sub(1);
        left.role = String::new();
        Ok(left)
    }

    /// Tells those who work on the conversation's messages, before whoever asked is answered.
    pub(super) fn members_changed(
        &self,
        conversation_id: &str,
        joined: &[UserId],
        left: &[UserId],
    ) -> Result<()> {
        let change = MembersChanged { conversation_id, joined, left, is_new: false };
        self.notifier.members_changed(&change).map_err(|error| failure(&error))
    }

    fn group(&self, user: UserId, id: &str) -> Result<(ConversationInfo, bool)> {
        let (info, member) = self.existing(id, user)?;
        match info.kind {
            Kind::Group => Ok((info, member)),
            Kind::Direct if member => Err(ErrorCode::Forbidden
                .failure("a direct conversation can be neither joined nor left")),
            Kind::Direct => {
                Err(ErrorCode::Forbidden.failure("a direct conversation cannot be joined"))
            }
        }
    }

    /// A page of a conversation's members by user id. `limit` 0: the default.
    pub(crate) fn members(
        &self,
        user: UserId,
        id: &str,
        cursor: u64,
        limit: u32,
    ) -> Result<Members> {
        let (info, member) = self.existing(id, user)?;
        if !member {
            return Err(NOT_A_MEMBER.failure());
        }
        let limit = match limit {
            0 => MEMBERS_LIMIT_DEFAULT,
            limit => limit.min(MEMBERS_LIMIT_MAX),
        };
        let listed = self.store.list_members(info.no, cursor, limit);
        let (listed, has_more) = listed.map_err(|error| failure(&error))?;
        let next_cursor = listed.last().map_or(cursor, |member| member.user);
        let items = listed.into_iter().map(|member| Member {
            user_id: member.user,
            username: member.username,
            nickname: member.nickname,
            role: member.role.name().to_owned(),
        });
        Ok(Members {
            request_id: 0,
            conversation_id: info.id,
            items: items.collect(),
            next_cursor,
            has_more,
        })
    }

    /// Moves read positions up, all of them in one transaction; answers in the order given.
    pub(crate) fn mark_read(&self, marks: &[ReadMark<'_>]) -> Vec<Result<u64>> {
        let mut answers: Vec<Result<u64>> = Vec::with_capacity(marks.len());
        let mut known = Vec::new();
        for mark in marks {
            answers.push(match self.store.conversation_of(mark.conversation_id, mark.user) {
                Ok(Some((info, true))) => {
                    known.push((answers.len(), (info.no, mark.user, mark.read_seq)));
                    Ok(0)
                }
                Ok(Some((_, false))) => Err(NOT_A_MEMBER.failure()),
                Ok(None) => Err(NOT_FOUND.failure()),
                Err(error) => Err(failure(&error)),
            });
        }
        let asked: Vec<_> = known.iter().map(|&(_, mark)| mark).collect();
        match self.store.mark_read(&asked) {
            Ok(in_force) => {
                for (&(at, _), seq) in known.iter().zip(in_force) {
                    answers[at] = seq.ok_or_else(|| NOT_A_MEMBER.failure());
                }
            }
            Err(error) => {
                let failed: Failure = failure(&error);
                known.iter().for_each(|&(at, _)| answers[at] = Err(failed.clone()));
            }
        }
        answers
    }
}
